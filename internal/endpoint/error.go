package endpoint

import "errors"

// What can be wrong with a call. Errors wrap one of these, or come from the parts below.
var (
	ErrInvalid  = errors.New("invalid request")
	ErrConflict = errors.New("conflicts with what is attached")
	ErrNotFound = errors.New("no such endpoint")
	ErrNotReady = errors.New("the agent is still starting")
	ErrFull     = errors.New("none left")
	ErrBroken   = errors.New("attachment is not as it should be")
	ErrNoDevice = errors.New("somebody deleted its device")
)
