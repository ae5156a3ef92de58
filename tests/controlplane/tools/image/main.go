// Writes Mozilla's root certificates as PEM, from a Go module that pins them: those of the machine differ from one to the
// next, and may have some that only that machine is meant to trust.
package main

import (
	"encoding/pem"
	"log"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

func main() {
	for root := range bundle.Roots() {
		// Trusted only for some of its certificates. PEM cannot say that.
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			log.Fatal(err)
		}
	}
}
