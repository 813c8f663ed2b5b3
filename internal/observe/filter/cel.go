package filter

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// celVariable is the name by which expressions know the flow.
const celVariable = "_flow"

// celCost bounds the work of one expression on one flow.
const celCost = 100_000

// celMax is the longest expression, in bytes.
const celMax = 8192

// celEnv is made when the first expression comes: it costs milliseconds.
var celEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Container("flow"), cel.Types(&flowpb.Flow{}), cel.Variable(celVariable, cel.ObjectType("flow.Flow")))
})

func expression(b *builder) {
	anyOf(b, "experimental.cel_expression", b.f.GetExperimental().GetCelExpression(), compileCEL,
		func(f *flowpb.Flow) *flowpb.Flow { return f })
}

// compileCEL compiles a Common Expression Language expression that yields a boolean. An expression that fails on a
// flow does not match it.
func compileCEL(s string) (func(*flowpb.Flow) bool, error) {
	if len(s) > celMax {
		return nil, fmt.Errorf("expression of %d bytes, at most %d are allowed", len(s), celMax)
	}
	env, err := celEnv()
	if err != nil {
		return nil, fmt.Errorf("prepare expressions: %w", err)
	}
	ast, iss := env.Compile(s)
	if iss.Err() != nil {
		return nil, iss.Err()
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("expression yields %s, want bool", ast.OutputType())
	}
	prg, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(celCost))
	if err != nil {
		return nil, err
	}
	return func(f *flowpb.Flow) bool {
		v, _, err := prg.Eval(map[string]any{celVariable: f})
		if err != nil {
			return false
		}
		ok, _ := v.Value().(bool)
		return ok
	}, nil
}
