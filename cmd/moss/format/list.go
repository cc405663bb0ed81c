package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// Format is the text of a --format flag.
type Format string

// table says whether the output has headings and aligned columns.
func (f Format) table() bool { return strings.HasPrefix(string(f), "table") }

// text is the template inside a format.
func (f Format) text() string {
	s := string(f)
	if s == "json" {
		return "{{json .}}"
	}
	s = strings.Trim(strings.TrimPrefix(s, "table"), " ")
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s)
}

// headings are the column titles of a kind of row, by field.
type headings map[string]string

// Label is the heading of {{.Label "com.example.some-key"}}: "some key".
func (headings) Label(name string) string {
	name = name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// writeRows executes the format for each row. Nothing is written before all rows have come out well.
func writeRows[R any](w io.Writer, f Format, h headings, rows []R) error {
	t, err := ParseTemplate(f.text())
	if err != nil {
		return err
	}
	var body bytes.Buffer
	for _, r := range rows {
		if err := t.Execute(&body, r); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		body.WriteByte('\n')
	}
	if !f.table() {
		_, err := body.WriteTo(w)
		return err
	}
	return writeTable(w, t, h, body.Bytes())
}

// writeTable aligns tab-separated rows below their headings.
func writeTable(w io.Writer, t *template.Template, h headings, body []byte) error {
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	// A heading that cannot be made (a function that wants another type) costs its line, never the rows.
	var head bytes.Buffer
	if err := t.Funcs(headingFunctions).Execute(&head, h); err == nil {
		head.WriteByte('\n')
		if _, err := tw.Write(head.Bytes()); err != nil {
			return err
		}
	}
	if _, err := tw.Write(body); err != nil {
		return err
	}
	return tw.Flush()
}

// object is a row as `--format json` prints it: each method of the row without arguments is a field.
func object(row any) ([]byte, error) {
	v := reflect.ValueOf(row)
	m := map[string]any{}
	for i := range v.NumMethod() {
		method := v.Type().Method(i)
		if f := v.Method(i); f.Type().NumIn() == 0 && f.Type().NumOut() == 1 {
			m[method.Name] = f.Call(nil)[0].Interface()
		}
	}
	return json.Marshal(m)
}
