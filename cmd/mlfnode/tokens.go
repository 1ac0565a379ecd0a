package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"mlfnode/cluster/trust"
	"mlfnode/grid/problem"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/membership"
)

func tokenCommand(a *app) *cobra.Command {
	var ask api.NewToken
	c := &cobra.Command{
		Use: "token", Short: "Create a token that lets a machine join or a person use the cluster", Args: noArgument,
		Long: `Create a token and print the command to type on the other machine. Run it on the master's machine,
where you ran mlfnode up, or with an admin token.

A node token lets machines join, and gives the person who joins one the role --user. An operator
token is for a person, for example on a laptop, who may do everything with sweeps; a viewer token
only reads, and an admin token also manages tokens and nodes. The token names the cluster's
authority, so nobody can pose as the master.`,
		Example: `  mlfnode token
  mlfnode token --uses 1 --expires 1h
  mlfnode token --role operator --note "Ada's laptop"`,
		RunE: func(c *cobra.Command, _ []string) error {
			if !c.Flags().Changed("expires") && ask.Role != "node" {
				ask.Expires = 0
			}
			return createToken(a, c, ask)
		},
	}
	f := c.Flags()
	f.StringVar(&ask.Role, "role", "node", "what the token is for: node, operator, viewer or admin")
	ask.Expires = 24 * time.Hour
	f.Var((*durationFlag)(&ask.Expires), "expires",
		"how long it is valid, as in 1h; 0 means forever, the default of roles other than node")
	f.IntVar(&ask.Uses, "uses", 0, "how many machines may join with it; 0 means any number")
	f.StringVar(&ask.User, "user", "",
		"role of the person who joins with a node token: operator, viewer or none (default operator)")
	f.StringVar(&ask.Note, "note", "", "a note for the list of tokens")
	a.jsonFlag(c)
	c.AddCommand(tokenListCommand(a), tokenRevokeCommand(a), tokenUseCommand(a), tokenRotateCommand(a))
	return c
}

func createToken(a *app, c *cobra.Command, ask api.NewToken) error {
	var t api.TokenMade
	err := a.callMaster(c.Context(), func(client *api.Client) (err error) {
		t, err = client.Access().MakeToken(c.Context(), ask)
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(t)
	}
	what, command := "On the machine that is to join, type:", "join --seed "
	if t.Role != "node" {
		what, command = "On the other machine, type:", "token use --master "
	}
	good := "It is valid until it is revoked"
	if !t.Expires.IsZero() {
		good = "It is valid until " + t.Expires.Local().Format("2 January 15:04")
	}
	a.say("%s\n", what)
	_, err = fmt.Fprintf(a.stdout, "%s=%s mlfnode %s%s\n", membership.TokenVariable, t.Token, command, t.Master)
	a.say("\n%s. End it with: mlfnode token revoke %s", good, t.ID)
	return err
}

func tokenListCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List tokens, without their secrets", Args: noArgument, Example: "  mlfnode token list",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.callMaster(c.Context(), func(client *api.Client) error {
				all, err := client.Access().Tokens(c.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(all)
				}
				return printTokens(a.console, all)
			})
		},
	}
	a.jsonFlag(c)
	return c
}

func printTokens(ui *console, all []api.TokenKnown) error {
	t := newTable(ui.stdout, "id", "role", "state", "made", "expires", "used", "note")
	for _, k := range all {
		expires, used := "never", ""
		if !k.Expires.IsZero() {
			expires = humanize.Time(k.Expires)
		}
		if k.Role == "node" {
			used = fmt.Sprint(k.Used)
		}
		if k.Uses > 0 {
			used = fmt.Sprintf("%d of %d", k.Used, k.Uses)
		}
		t.row(k.ID, k.Role, k.State, timeAgo(k.Made), expires, used, k.Note)
	}
	return t.flush()
}

func tokenRevokeCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Revoke a token, and the access of people who joined with it", Args: oneArgument,
		Example: "  mlfnode token revoke 1a2b3c4d",
		RunE: func(c *cobra.Command, args []string) error {
			return a.callMaster(c.Context(), func(client *api.Client) error {
				return client.Access().RevokeToken(c.Context(), args[0])
			})
		},
	}
}

func tokenUseCommand(a *app) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "use", Short: "Save a token, so that your commands go to its cluster", Args: noArgument,
		Long: `Save an operator, viewer or admin token with the address of its master. From then on your commands
go to that cluster; with --local a command stays on this machine. The token is read from
MLF_CLUSTER_TOKEN or --token-file, or typed on the terminal.`,
		Example: "  mlfnode token use --master hostA",
		RunE: func(c *cobra.Command, _ []string) error {
			if a.master == "" {
				return usage("token use needs the address of the master", "mlfnode token use --master HOST")
			}
			token, err := readToken(c.Context(), a.console, file)
			if err != nil {
				return err
			}
			contact, err := node.Introduce(c.Context(), a.master, token)
			if err != nil {
				return err
			}
			kept, err := node.SaveContext(contact)
			if err != nil {
				return err
			}
			noteKeptContext(a.console, kept)
			a.say("saved; commands now use the cluster at %s", contact.Master[0])
			return nil
		},
	}
	c.Flags().StringVar(&file, "token-file", "", "file with the token; - is standard input")
	return c
}

func tokenRotateCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Give the cluster a new gossip key, without a pause", Args: noArgument,
		Example: "  mlfnode token rotate",
		RunE: func(c *cobra.Command, _ []string) error {
			return noteNewKey(a.console, a.callMaster(c.Context(), func(client *api.Client) error {
				return client.Access().RotateKeyring(c.Context())
			}))
		},
	}
}

// readToken reads the token from the file, the environment or the terminal.
func readToken(ctx context.Context, ui *console, file string) (trust.Token, error) {
	text, err := readTokenText(ctx, ui, file)
	if err != nil {
		return trust.Token{}, err
	}
	t, err := trust.ParseToken(text)
	if err != nil {
		return t, usage(err.Error(), "make a new one on the master with: mlfnode token")
	}
	return t, nil
}

func readTokenText(ctx context.Context, ui *console, file string) (string, error) {
	text := os.Getenv(membership.TokenVariable)
	switch {
	case file == "-":
		line, err := bufio.NewReader(io.LimitReader(os.Stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the token: %w", err)
		}
		return line, nil
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", usage(fmt.Sprintf("the token file %s can't be read: %v", file, problem.WithoutPath(err)), "")
		}
		return string(b), nil
	case text != "":
		return text, nil
	case !isTerminal(os.Stdin):
		return "", usage("this machine has not joined the cluster yet and needs a token",
			"run mlfnode token on the master, and type here what it prints")
	}
	b, err := ui.askSecret(ctx, "token: ")
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
