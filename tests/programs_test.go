package tests

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"github.com/miekg/dns"
)

// serveHTTP ADDRESS answers every request with the address that it came from.
func serveHTTP() {
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintln(w, "got", n)
			return
		}
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, "hello", host)
	})))
}

// serveDNS ADDRESS NAME=IP... knows these names.
func serveDNS() {
	known := map[string]net.IP{}
	for _, kv := range os.Args[2:] {
		k, v, _ := strings.Cut(kv, "=")
		known[dns.Fqdn(k)] = net.ParseIP(v)
	}
	log.Fatal(dns.ListenAndServe(os.Args[1], "udp", dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg)
		a.SetReply(q)
		ip, ok := known[strings.ToLower(q.Question[0].Name)]
		switch {
		case !ok:
			a.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			a.Answer = append(a.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: ip})
		}
		_ = w.WriteMsg(a)
	})))
}

// echoUDP ADDRESS sends back what comes.
func echoUDP() {
	c, err := net.ListenPacket("udp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 65536)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			log.Fatal(err)
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// withDescriptor PROGRAM [ARG...] starts a program that inherits an open file of the caller's, as descriptor 3.
func withDescriptor() {
	secret, err := os.Open("/etc/hostname")
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{secret}
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}
}
