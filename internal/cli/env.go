package cli

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/hypha-net/hypha/api/agent/v1/agentv1connect"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/client"
)

// env is what the commands of one tree share: the outside and the flags that name the agent.
type env struct {
	Deps
	color    out.Color
	socket   string
	stateDir string
	nodeName string
	root     *cobra.Command
	cluster  ClusterFlags
}

// flags declares the flags that name the agent. Other packages' commands find them by these names. The environment is
// their default.
func (e *env) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	e.root = root
	f.StringVarP(&e.socket, "socket", "H", "", "socket of the agent, a path or unix:// URI [HYPHA_SOCKET]")
	f.StringVar(&e.stateDir, "state-dir", e.Getenv(client.EnvStateDir), "state directory of the agent (default: /var/lib/hypha, then the demo's) [HYPHA_STATE_DIR]")
	f.StringVar(&e.nodeName, "node-name", e.Getenv(client.EnvNodeName), "name of the agent's node (default: this host, else the first that answers) [HYPHA_NODE_NAME]")
}

func (e *env) find(admin bool) (string, error) {
	f := e.root.PersistentFlags()
	if f.Changed("socket") && (f.Changed("state-dir") || f.Changed("node-name")) {
		return "", usagef("--socket already says which agent: leave --state-dir and --node-name out")
	}
	socket := e.socket
	if !f.Changed("socket") && !f.Changed("state-dir") && !f.Changed("node-name") {
		socket = e.Getenv(client.EnvSocket)
	}
	return client.Find(e.stateDir, e.nodeName, socket, admin)
}

// reader is the agent's reading half.
func (e *env) reader() (agentv1connect.ReaderClient, error) {
	s, err := e.find(false)
	if err != nil {
		return nil, err
	}
	return client.Reader(s), nil
}

// admin is the agent's changing half.
func (e *env) admin() (agentv1connect.AdminClient, error) {
	s, err := e.find(true)
	if err != nil {
		return nil, err
	}
	return client.Admin(s), nil
}

// say writes a remark that is not part of the result.
func (e *env) say(format string, args ...any) { fmt.Fprintf(e.Stderr, format+"\n", args...) }

// req saves the generic's name at each call.
func req[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

// notFound says that what is asked for does not exist, and where to see what does.
func notFound(err error, what, see string) error {
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	return fmt.Errorf("there is no %s: `%s` shows what there is", what, see)
}
