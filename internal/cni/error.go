package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/hypha-net/hypha/internal/client"
)

// Error codes of this plugin; the specification leaves those from 100 on to us.
const (
	codeConflict = 100 // attached already, and not like this
	codeBroken   = 101 // CHECK: not as it was made
)

// fail turns an error of an agent's call into the specification's. invalid is the code for a request that the agent
// calls invalid: where its text came from is known only here.
func fail(what string, err error, invalid uint) *types.Error {
	if te, ok := errors.AsType[*types.Error](err); ok {
		return te
	}
	code := types.ErrInternal
	var unreached *client.Error
	switch c := connect.CodeOf(err); {
	case errors.As(err, &unreached):
		code = types.ErrTryAgainLater
	case c == connect.CodeInvalidArgument:
		code = invalid
	case c == connect.CodeNotFound:
		code = types.ErrUnknownContainer
	case c == connect.CodeAlreadyExists:
		code = codeConflict
	case c == connect.CodeFailedPrecondition:
		code = codeBroken
	case c == connect.CodeUnavailable, c == connect.CodeDeadlineExceeded, c == connect.CodeResourceExhausted,
		c == connect.CodeAborted, c == connect.CodeCanceled:
		code = types.ErrTryAgainLater
	}
	return types.NewError(code, fmt.Sprintf("%s: %s", what, client.Message(err)), "")
}

// unreachable says whether the agent could not be asked, or did not get as far as doing anything.
func unreachable(err error) bool {
	if _, ok := errors.AsType[*client.Error](err); ok {
		return true
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return true
	}
	return false
}

// printError writes an error as the specification wants it on stdout.
func printError(w io.Writer, e *types.Error) error {
	data, err := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion"`
		*types.Error
	}{supported.SupportedVersions()[len(supported.SupportedVersions())-1], e}, "", "    ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}
