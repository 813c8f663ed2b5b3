package filter

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"

	flowpb "github.com/hypha-net/hypha/api/flow"
)

// celVariable is the name by which expressions know the flow.
const celVariable = "_flow"

// Bounds of the work of one expression on one flow. The cost of a regular expression does not count what its repetitions
// come to, so their programs have a bound of their own; it holds for patterns that are put together at run time, too.
const (
	celCost  = 20_000
	celRegex = 128 // instructions
)

// celMax is the longest expression, in bytes.
const celMax = 4096

// celEnv is made when the first expression comes: it costs milliseconds.
var celEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Container("flow"), cel.Types(&flowpb.Flow{}), cel.Variable(celVariable, cel.ObjectType("flow.Flow")),
		cel.RegexProgramSizeLimit(celRegex))
})

func expression(b *builder) {
	anyOf(b, "experimental.cel_expression", b.f.GetExperimental().GetCelExpression(), b.compileCEL,
		func(f *flowpb.Flow) *flowpb.Flow { return f })
}

// compileCEL compiles a Common Expression Language expression that yields a boolean. An expression that fails on a
// flow does not match it.
func (b *builder) compileCEL(s string) (func(*flowpb.Flow) bool, error) {
	if err := b.budget.expression(); err != nil {
		return nil, err
	}
	if len(s) > celMax {
		return nil, fmt.Errorf("expression of %d bytes, at most %d are allowed", len(s), celMax)
	}
	env, err := celEnv()
	if err != nil {
		return nil, fmt.Errorf("prepare expressions: %w", err)
	}
	ast, iss := env.Compile(s)
	if errs := iss.Errors(); len(errs) > 0 { // the first: each of them shows the whole text, in time that its length decides
		return nil, fmt.Errorf("column %d: %s", errs[0].Location.Column()+1, errs[0].Message)
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
