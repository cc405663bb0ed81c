package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/template"
)

// Inspector prints objects in full: as a JSON array, indented by four blanks (or on one line with format "json"), or
// each through a template.
type Inspector struct {
	compact bool
	tmpl    *template.Template // nil: JSON
	objects []json.RawMessage
	text    bytes.Buffer
}

// NewInspector takes the text of --format; "" is the indented array.
func NewInspector(format string) (*Inspector, error) {
	if format == "" || format == "json" {
		return &Inspector{compact: format == "json"}, nil
	}
	t, err := ParseTemplate(format)
	if err != nil {
		return nil, err
	}
	return &Inspector{tmpl: t}, nil
}

// Add takes one object. A template is executed on the value first, and then, where the value's type has no such field,
// on its JSON: names are then as in the JSON, and one that is missing there is an error.
func (i *Inspector) Add(v any) error {
	text, err := toJSON(v)
	if err != nil {
		return err
	}
	if i.tmpl == nil {
		i.objects = append(i.objects, json.RawMessage(text))
		return nil
	}
	var out bytes.Buffer
	if err := i.tmpl.Execute(&out, v); err != nil {
		out.Reset()
		dec := json.NewDecoder(bytes.NewReader([]byte(text)))
		dec.UseNumber()
		var bare any
		if err := dec.Decode(&bare); err != nil {
			return fmt.Errorf("unable to read inspect data: %w", err)
		}
		strict, err := i.tmpl.Clone()
		if err != nil {
			return err
		}
		if err := strict.Option("missingkey=error").Execute(&out, bare); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(&i.text)
	return err
}

// Flush writes all that was added; with nothing added it is an empty array, or for a template an empty line.
func (i *Inspector) Flush(w io.Writer) error {
	if i.tmpl != nil {
		if i.text.Len() == 0 {
			i.text.WriteByte('\n')
		}
		_, err := i.text.WriteTo(w)
		return err
	}
	if len(i.objects) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	joined := append(append([]byte{'['}, bytes.Join(rawBytes(i.objects), []byte{','})...), ']')
	var out bytes.Buffer
	if i.compact {
		out.Write(joined)
	} else if err := json.Indent(&out, joined, "", "    "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

func rawBytes(list []json.RawMessage) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i]
	}
	return out
}
