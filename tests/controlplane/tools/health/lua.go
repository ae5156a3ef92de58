package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
)

// Argo CD gives a script one second. A busy test machine needs more to mean the same.
const timeLimit = 5 * time.Second

// The words that Argo CD knows; with any other it takes the health for Unknown.
var argoStatuses = []string{"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}

// A script of Argo CD, run as Argo CD runs it: with the libraries that it opens and no others.
type script struct {
	file string
	text string
}

func loadScript(file string) (*script, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return &script{file, string(text)}, nil
}

func (s *script) health(object *unstructured.Unstructured) (verdict, error) {
	var health verdict
	if err := s.run(object, &health); err != nil {
		return verdict{}, err
	}
	if !slices.Contains(argoStatuses, health.Status) {
		return verdict{"Unknown", "Lua returned an invalid health status"}, nil
	}
	return health, nil
}

func (s *script) discover(object *unstructured.Unstructured) (map[string]action, error) {
	var returned any
	if err := s.run(object, &returned); err != nil {
		return nil, err
	}
	actions := map[string]action{}
	if isEmptyTable(returned) {
		return actions, nil
	}
	table, ok := returned.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: the returned table has no names of actions", s.file)
	}
	for name, properties := range table {
		var found action
		if !isEmptyTable(properties) {
			if err := convert(properties, &found); err != nil {
				return nil, fmt.Errorf("%s: action %s: %w", s.file, name, err)
			}
		}
		actions[name] = found
	}
	return actions, nil
}

func (s *script) act(object *unstructured.Unstructured) (map[string]any, error) {
	var returned any
	if err := s.run(object, &returned); err != nil {
		return nil, err
	}
	changed, ok := returned.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s: the returned table is no object", s.file)
	}
	// Through JSON, so that both sides are made of the same types.
	var original any
	if err := convert(object.Object, &original); err != nil {
		return nil, err
	}
	return restoreEmpty(changed, original).(map[string]any), nil
}

// Runs the script and decodes the table that it returns.
func (s *script) run(object *unstructured.Unstructured, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	state, err := newState(ctx)
	if err != nil {
		return err
	}
	defer state.Close()

	var plain any
	if err := convert(object.Object, &plain); err != nil {
		return err
	}
	state.SetGlobal("obj", luajson.DecodeValue(state, plain))
	function, err := state.LoadString(s.text)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	state.Push(function)
	if err := state.PCall(0, 1, nil); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: not done after %s", s.file, timeLimit)
		}
		return fmt.Errorf("%s: %w", s.file, err)
	}
	returned := state.Get(-1)
	if returned.Type() != lua.LTTable {
		return fmt.Errorf("%s: it has to return a table, not %s", s.file, returned.Type())
	}
	encoded, err := luajson.Encode(returned)
	if err != nil {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	if err := json.Unmarshal(encoded, result); err != nil {
		return fmt.Errorf("%s: the returned table is of the wrong shape: %w", s.file, err)
	}
	return nil
}

// The libraries base, table and package, and of os the clock, which a script has to require, as with Argo CD.
func newState(ctx context.Context) (*lua.LState, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		state.Push(state.NewFunction(library.open))
		state.Push(lua.LString(library.name))
		if err := state.PCall(1, 0, nil); err != nil {
			state.Close()
			return nil, fmt.Errorf("cannot open the Lua library %q: %w", library.name, err)
		}
	}
	state.PreloadModule(lua.OsLibName, openClock)
	// Standard output is for the verdicts.
	state.SetGlobal("print", state.NewFunction(printToStandardError))
	state.SetContext(ctx)
	return state, nil
}

// Nothing of os but what tells the time: no files, processes or environment.
func openClock(state *lua.LState) int {
	// Another state, so that the whole library is never within reach of the script.
	donor := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer donor.Close()
	lua.OpenOs(donor)
	whole := donor.CheckTable(-1)
	clock := map[string]lua.LGFunction{}
	for _, name := range []string{"time", "date"} {
		clock[name] = whole.RawGetString(name).(*lua.LFunction).GFunction
	}
	state.Push(state.SetFuncs(state.NewTable(), clock))
	return 1
}

func printToStandardError(state *lua.LState) int {
	for index := 1; index <= state.GetTop(); index++ {
		fmt.Fprint(os.Stderr, state.ToStringMeta(state.Get(index)), "\t")
	}
	fmt.Fprintln(os.Stderr)
	return 0
}

// Lua has one kind of empty table, which comes back as an empty array. Where there was an object before, it is put back
// as it was. Argo CD does the same, so an action cannot empty an object there either.
func restoreEmpty(changed, original any) any {
	switch changed := changed.(type) {
	case map[string]any:
		original, ok := original.(map[string]any)
		if !ok {
			return changed
		}
		for key, value := range changed {
			changed[key] = restoreEmpty(value, original[key])
		}
	case []any:
		switch original := original.(type) {
		case map[string]any:
			if len(changed) == 0 {
				return original
			}
		case []any:
			for index := range min(len(changed), len(original)) {
				changed[index] = restoreEmpty(changed[index], original[index])
			}
		}
	}
	return changed
}

func isEmptyTable(value any) bool {
	array, ok := value.([]any)
	return ok && len(array) == 0
}

func convert(value, into any) error {
	encoded, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(encoded, into)
}
