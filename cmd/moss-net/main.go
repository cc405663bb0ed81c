// Command moss-net is a container's network process. It is built first and embedded in moss.
package main

import "github.com/moss-run/moss/netns/netproc"

func main() { netproc.Main() }
