package tests

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

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

// fetch URL [BYTES] prints what a web server says, to so many bytes if they are given. It stands in for wget, which in
// Debian's static busybox needs libraries.
func fetch() {
	c := http.Client{Timeout: 20 * time.Second}
	var resp *http.Response
	var err error
	if len(os.Args) > 2 {
		n, _ := strconv.ParseInt(os.Args[2], 10, 64)
		resp, err = c.Post(os.Args[1], "application/octet-stream", io.LimitReader(nothing{}, n))
	} else {
		resp, err = c.Get(os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(os.Stdout, resp.Body)
}

// reach TIMEOUT HOST:PORT... says which of them take a TCP connection.
func reach() {
	limit, err := time.ParseDuration(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, a := range os.Args[2:] {
		c, err := net.DialTimeout("tcp", a, limit)
		if err != nil {
			fmt.Println(a, "out of reach")
			continue
		}
		// The network process may take the connection before it knows whether there is somebody.
		_ = c.SetDeadline(time.Now().Add(limit))
		fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
		if n, _ := c.Read(make([]byte, 1)); n == 1 {
			fmt.Println(a, "answers")
		} else {
			fmt.Println(a, "out of reach")
		}
		c.Close()
	}
}

// askUDP HOST:PORT TEXT prints the answer to a datagram.
func askUDP() {
	c, err := net.Dial("udp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 65536)
	for range 5 {
		_, _ = c.Write([]byte(os.Args[2]))
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, err := c.Read(b); err == nil {
			fmt.Printf("%s\n", b[:n])
			return
		}
	}
	log.Fatal("no answer")
}

// lookUp NAME prints its addresses.
func lookUp() {
	all, err := net.LookupHost(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(all, " "))
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
