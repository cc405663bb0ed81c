// Command report reads what `go test -json` (or test2json) says, prints of it what a person wants to know, and adds a
// line to a file for each test: pass, fail or skip. Tests that only group others do not count.
//
//	go test -json ./... | report LABEL RESULTS
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

// event is one line of `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type test struct {
	output []string
	action string
	parent bool
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: report LABEL RESULTS")
		os.Exit(2)
	}
	label := os.Args[1]
	results, err := os.OpenFile(os.Args[2], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer results.Close()

	began := time.Now()
	tests := map[string]*test{} // by "package test"; a package itself has no test's name
	var order []string
	get := func(pkg, name string) *test {
		key := pkg + " " + name
		t, ok := tests[key]
		if !ok {
			t = &test{}
			tests[key] = t
			order = append(order, key)
			if i := strings.LastIndex(name, "/"); i >= 0 {
				// A story's own name may have a slash; a parent that does not exist is nobody's.
				if p, ok := tests[pkg+" "+name[:i]]; ok {
					p.parent = true
				}
			}
		}
		return t
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		switch e.Action {
		case "output", "build-output":
			pkg := e.Package
			if pkg == "" {
				pkg = e.ImportPath
			}
			t := get(pkg, e.Test)
			t.output = append(t.output, e.Output)
		case "pass", "fail", "skip":
			get(e.Package, e.Test).action = e.Action
		}
	}

	count := map[string]int{}
	failedIn := map[string]bool{} // packages and parents with a failure below them
	tell := func(key string, t *test, action string) {
		count[action]++
		fmt.Fprintln(results, action, label+":", strings.TrimSpace(key))
		switch action {
		case "fail":
			fmt.Printf("--- FAIL: %s\n%s", key, strings.Join(t.output, ""))
		case "skip":
			fmt.Printf("--- skip: %s: %s\n", key, reason(t.output))
		}
	}
	for _, key := range order {
		t := tests[key]
		pkg, name, _ := strings.Cut(key, " ")
		if name == "" || t.parent {
			continue
		}
		action := t.action
		if action == "" { // its process ended in the middle
			action = "fail"
		}
		if action == "fail" {
			failedIn[pkg] = true
			for i := range name {
				if name[i] == '/' {
					failedIn[pkg+" "+name[:i]] = true
				}
			}
		}
		tell(key, t, action)
	}
	// What failed by itself: a parent, or a package that did not compile, ran out of time or crashed.
	for _, key := range order {
		t := tests[key]
		if t.action == "fail" && t.parent && !failedIn[key] {
			failedIn[strings.SplitN(key, " ", 2)[0]] = true
			tell(key, t, "fail")
		}
	}
	for _, key := range order {
		pkg, name, _ := strings.Cut(key, " ")
		t := tests[key]
		if name == "" && (t.action == "fail" || t.action == "") && !failedIn[pkg] && len(t.output) > 0 {
			tell(key, t, "fail")
		}
	}
	fmt.Printf("%s: %d passed, %d failed, %d skipped (%s)\n", label, count["pass"], count["fail"], count["skip"], time.Since(began).Round(100*time.Millisecond))
	if count["fail"] > 0 {
		os.Exit(1)
	}
}

// said is a line that a test said of itself: "file_test.go:12: text".
var said = regexp.MustCompile(`^\s*\S+_test\.go:\d+: (.*)`)

// reason is the last thing that a skipped test said of itself.
func reason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		if m := said.FindStringSubmatch(strings.TrimRight(output[i], "\n")); m != nil {
			return m[1]
		}
	}
	return "no reason given"
}
