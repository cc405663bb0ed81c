package main

import (
	"testing"
	"time"
)

func TestSinceTakesWhatDockerTakes(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("here", 3600)
	defer func() { time.Local = local }()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"42m":                            "2026-03-01T11:18:00Z",
		"-1h":                            "2026-03-01T13:00:00Z",
		"0":                              "2026-03-01T12:00:00Z", // a duration, as in docker
		"2013-01-02T13:23:37Z":           "2013-01-02T13:23:37Z",
		"2013-01-02T13:23:37.123456789Z": "2013-01-02T13:23:37.123456789Z",
		"2013-01-02T13:23:37+02:00":      "2013-01-02T11:23:37Z",
		"2013-01-02T13:23":               "2013-01-02T12:23:00Z",
		"2013-01-02T13":                  "2013-01-02T12:00:00Z",
		"2013-01-02":                     "2013-01-01T23:00:00Z",
		"2013-01-02Z":                    "2013-01-02T00:00:00Z",
		"1136073845":                     "2006-01-01T00:04:05Z",
		"1136073845.5":                   "2006-01-01T00:04:05.5Z",
		"1136073845.000000001":           "2006-01-01T00:04:05.000000001Z",
	} {
		got, err := parseTime(in, now)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s (%v), want %s", in, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
	for _, in := range []string{"yesterday", "1.2.3", "2013-13-01", "12:30", "1136073845.1234567890", "1136073845.-5", "9999999999999999999999"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("%q was taken for %s", in, got)
		}
	}
	if got, err := parseTime("", now); err != nil || !got.IsZero() {
		t.Errorf("nothing: %s, %v", got, err)
	}
}
