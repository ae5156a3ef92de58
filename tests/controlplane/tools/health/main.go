// Command health judges the health of Kubernetes objects as others would: kstatus (which Flux and kpt go by) and an
// Argo CD health check script. Tests hold their verdicts against each other and against that of kubectl.
//
//	health --lua FILE            array of objects → array of {"kstatus": …, "argo": …}
//	health discovery --lua FILE  object → the resource actions that the script offers, by name
//	health action --lua FILE     object → the object as the action script leaves it
//
// It reads JSON from standard input and writes JSON to standard output. Whatever goes wrong is an exit with 1 and a line
// on standard error.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type verdicts struct {
	Kstatus verdict `json:"kstatus"`
	Argo    verdict `json:"argo"`
}

// What Argo CD reads of an action that a discovery script returns.
type action struct {
	Disabled    bool   `json:"disabled"`
	DisplayName string `json:"displayName,omitempty"`
	IconClass   string `json:"iconClass,omitempty"`
}

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "health:", err)
		os.Exit(1)
	}
}

func run(arguments []string, in io.Reader, out io.Writer) error {
	command := "judge"
	if len(arguments) > 0 && (arguments[0] == "action" || arguments[0] == "discovery") {
		command, arguments = arguments[0], arguments[1:]
	}
	flags := flag.NewFlagSet("health [action|discovery]", flag.ContinueOnError)
	file := flags.String("lua", "", "the `script` of Argo CD")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *file == "" || flags.NArg() > 0 {
		flags.Usage()
		return errors.New("exactly one script is needed: --lua FILE")
	}
	script, err := loadScript(*file)
	if err != nil {
		return err
	}
	answer, err := perform(command, script, json.NewDecoder(in))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(answer)
}

func perform(command string, script *script, in *json.Decoder) (any, error) {
	if command == "judge" {
		var objects []*unstructured.Unstructured
		if err := in.Decode(&objects); err != nil {
			return nil, fmt.Errorf("no array of objects on standard input: %w", err)
		}
		return judge(script, objects)
	}
	var object unstructured.Unstructured
	if err := in.Decode(&object); err != nil {
		return nil, fmt.Errorf("no object on standard input: %w", err)
	}
	if command == "discovery" {
		return script.discover(&object)
	}
	return script.act(&object)
}

func judge(script *script, objects []*unstructured.Unstructured) ([]verdicts, error) {
	all := make([]verdicts, 0, len(objects))
	for index, object := range objects {
		if object == nil {
			return nil, fmt.Errorf("object %d is null", index)
		}
		kstatus, err := status.Compute(object)
		if err != nil {
			return nil, fmt.Errorf("object %d, %s %s: kstatus: %w", index, object.GetKind(), object.GetName(), err)
		}
		argo, err := script.health(object)
		if err != nil {
			return nil, fmt.Errorf("object %d, %s %s: %w", index, object.GetKind(), object.GetName(), err)
		}
		all = append(all, verdicts{Kstatus: verdict{kstatus.Status.String(), kstatus.Message}, Argo: argo})
	}
	return all, nil
}
