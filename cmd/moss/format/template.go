package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"
)

// functions are what docker adds to the functions that every Go template has.
var functions = template.FuncMap{
	"json":     toJSON,
	"split":    strings.Split,
	"join":     join,
	"title":    title,
	"lower":    strings.ToLower,
	"upper":    strings.ToUpper,
	"pad":      pad,
	"truncate": truncate,
}

// headingFunctions replace them while a table's headings are made, which come out as they are whatever is done to the
// values below. pad stays, for it moves columns.
var headingFunctions = template.FuncMap{
	"json":     func(s string) string { return s },
	"split":    func(s, _ string) string { return s },
	"join":     func(s, _ string) string { return s },
	"title":    func(s string) string { return s },
	"lower":    func(s string) string { return s },
	"upper":    func(s string) string { return s },
	"truncate": func(s string, _ int) string { return s },
}

// ParseTemplate parses a Go template with docker's functions.
func ParseTemplate(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// toJSON leaves <, > and & alone, which encoding/json escapes for the sake of HTML.
func toJSON(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// join takes any list; a map gives its values in order.
func join(list any, sep string) (string, error) {
	if list == nil {
		return "", nil
	}
	var parts []string
	switch v := reflect.ValueOf(list); v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			parts = append(parts, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			parts = append(parts, fmt.Sprint(it.Value().Interface()))
		}
		sort.Strings(parts)
	default:
		return "", fmt.Errorf("expected slice, got %T", list)
	}
	return strings.Join(parts, sep), nil
}

// title puts the first letter of each word in upper case; blanks and punctuation part words.
func title(s string) string {
	inWord := false
	return strings.Map(func(r rune) rune {
		first := !inWord
		inWord = unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_'
		if first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

// pad puts blanks around what is not empty. Counts come from the user: a negative one is an error and no panic.
func pad(s string, before, after int) (string, error) {
	if s == "" {
		return "", nil
	}
	if before < 0 || after < 0 || before > 4096 || after > 4096 {
		return "", errors.New("pad: width out of range")
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after), nil
}

// truncate cuts to n bytes at most, and never inside a character.
func truncate(s string, n int) (string, error) {
	if n < 0 {
		return "", errors.New("truncate: negative length")
	}
	if len(s) <= n {
		return s, nil
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n], nil
}
