// Package tests holds moss to what its user was promised: stories (testdata/*.txt, in the language of
// github.com/rogpeppe/go-internal/testscript) drive the built binary against a registry on this machine.
//
// A story is named by what a user does, and has a home, a store and a runtime folder of its own. It starts with `need`,
// which skips it, with the reason, where the machine lacks something. The servers and images that all stories share
// stand in registry_test.go, images_test.go and faults_test.go; the commands that stories have beside testscript's own
// in commands_test.go and terminal_test.go. The binary is $MOSS_BIN, else ../bin/moss. With -short only the stories
// run that differ between kinds of users.
package tests
