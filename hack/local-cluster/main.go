// Command kubernetes is every server of the local cluster in one program: one build compiles what they
// share once, and one link replaces ten. The name by which it is called, or its first argument, selects the server.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// servers has the main function of each server by the name of its program.
var servers = map[string]func(){}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "kubernetes" && len(os.Args) > 1 {
		os.Args = os.Args[1:]
		name = os.Args[0]
	}
	serve, known := servers[name]
	if !known {
		fmt.Fprintf(os.Stderr, "kubernetes: %q is none of %s\n", name, strings.Join(slices.Sorted(maps.Keys(servers)), ", "))
		os.Exit(2)
	}
	serve()
}
