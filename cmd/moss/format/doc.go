// Package format turns docker's own types into what docker prints.
//
// A list command has rows (Containers, Images) and a Format, which is the text of its --format flag:
//
//	""  or "table"      the command's own table
//	"table {{.ID}}\t…"  a table with columns of the user's choice, under docker's headings
//	"json"              one object per line, with docker's field names and strings as values
//	"raw"               "key: value" blocks
//	anything else       a Go template, executed once per row
//
// Templates know docker's functions (template.go). `images` without any format has a view of its own (imageview.go).
// Inspector prints single objects in full, as indented JSON or through a template that sees the typed value first and
// the bare JSON second.
//
// What a template may name, the words in headings and the way sizes, ages and ports are put are fixed by docker's users:
// scripts cut them apart. Each has its golden file in testdata.
package format
