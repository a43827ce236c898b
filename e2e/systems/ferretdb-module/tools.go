//go:build tools

// Package tools names the program that this module is there to pin, so that `go mod tidy` keeps it.
package tools

import _ "github.com/FerretDB/FerretDB/cmd/ferretdb"
