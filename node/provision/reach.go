package provision

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// dialTimeout bounds each attempt to reach the master.
const dialTimeout = 2 * time.Second

// chooseSeed finds the address at which this machine reaches the master, and checks the master's
// other ports there. The current address is kept as long as it works.
func (o *operation) chooseSeed(ctx context.Context) (string, error) {
	seeds := slices.Clone(o.request.Desired.Seeds)
	if len(seeds) == 0 {
		return "", errors.New("the request names no address of the master")
	}
	if old := currentSeed(o.Layout); slices.Contains(seeds, old) {
		seeds = slices.Insert(slices.DeleteFunc(seeds, func(s string) bool { return s == old }), 0, old)
	}
	failed := make([]error, 0, len(seeds))
	for _, seed := range seeds {
		address, err := api.WithPort(seed, config.DefaultAPIPort)
		if err != nil {
			return "", err
		}
		if err := tryDial(ctx, address); err != nil {
			failed = append(failed, unreachableProblem(address, err))
			continue
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return "", err
		}
		for _, port := range []int{o.request.Desired.NATS, o.request.Desired.Gossip} {
			if port == 0 {
				continue
			}
			at := net.JoinHostPort(host, strconv.Itoa(port))
			if err := tryDial(ctx, at); err != nil {
				return "", unreachableProblem(at, err)
			}
		}
		return address, nil
	}
	return "", failed[0]
}

// currentSeed returns the seed in node.yaml.
func currentSeed(p protocol.Layout) string {
	var c struct {
		Seed string `yaml:"seed"`
	}
	if b, err := os.ReadFile(p.Config()); err == nil {
		_ = yaml.Unmarshal(b, &c) // an unreadable file has no seed
	}
	return c.Seed
}

// reachNodes dials the gossip ports of other nodes over TCP. UDP has no answer to wait for, and
// gossip works without it.
func reachNodes(ctx context.Context, addresses []string) error {
	for _, address := range addresses {
		if err := tryDial(ctx, address); err != nil {
			host, port, _ := net.SplitHostPort(address)
			why := err.Error()
			if errors.Is(err, os.ErrDeadlineExceeded) || os.IsTimeout(err) {
				why = "timed out"
			}
			return &protocol.Problem{Cause: fmt.Sprintf("the master can't reach this machine's port %s/tcp at %s (%s)",
				port, host, why),
				Cure: fmt.Sprintf(
					"open the port for TCP and UDP in this machine's firewall, as with: sudo ufw allow %s", port)}
		}
	}
	return nil
}

func tryDial(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// unreachableProblem reports which port of the master can't be reached, why, and what to do.
func unreachableProblem(address string, err error) *protocol.Problem {
	host, port, _ := net.SplitHostPort(address)
	why, cure := err.Error(), "on the master: mlfnode doctor"
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && !dns.IsNotFound:
		why = "the name could not be looked up: " + dns.Err
		cure = "try again, or give the master's address instead of its name; see this machine's name server (/etc/resolv.conf)"
	case errors.As(err, &dns):
		why = "the name has no address"
		cure = "give the master's address instead of its name, or add the name to /etc/hosts on this machine"
	case errors.As(err, &timeout) && timeout.Timeout():
		why = "timed out"
		cure = fmt.Sprintf("open the port in the master's firewall, as with: sudo ufw allow %s/tcp; "+
			"or check that %s is an address that this machine reaches", port, host)
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "refused"
		cure = fmt.Sprintf(
			"see on the master whether its node runs and listens there (ss -ltn), or whether a firewall rejects port %s",
			port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		why, cure = "there is no route to it", "ip route get "+strings.Trim(host, "[]")+
			" on this machine shows which network is missing"
	}
	return &protocol.Problem{Cause: fmt.Sprintf("this machine can't reach the master's port %s/tcp at %s (%s)", port,
		host, why), Cure: cure}
}
