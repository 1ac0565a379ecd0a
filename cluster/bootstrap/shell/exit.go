package shell

import (
	"errors"
	"slices"

	"golang.org/x/crypto/ssh"
)

var errNoExit = errors.New("await exit: the session ended before the program")

// waitExit waits for the end of a program: nil for exit code 0, else an *ExitError, or errNoExit.
// See RFC 4254, section 6.10.
func waitExit(requests <-chan *ssh.Request) error {
	for request := range requests {
		if request.WantReply {
			_ = request.Reply(false, nil) // a session that is gone shows at the next request
		}
		code := 0
		switch request.Type {
		case "exit-status":
			var status struct{ Code uint32 }
			if ssh.Unmarshal(request.Payload, &status) != nil {
				continue
			}
			code = int(status.Code)
		case "exit-signal":
			var signal struct {
				Name        string
				Core        bool
				Words, Lang string
			}
			if ssh.Unmarshal(request.Payload, &signal) != nil {
				continue
			}
			code = 128 + max(0, slices.Index(signals, signal.Name))
		default:
			continue
		}
		if code == 0 {
			return nil
		}
		return &ExitError{Code: code}
	}
	return errNoExit
}

// signals are the signals that RFC 4254 names, at their numbers on Linux.
var signals = []string{"", "HUP", "INT", "QUIT", "ILL", "", "ABRT", "", "FPE", "KILL", "USR1", "SEGV", "USR2",
	"PIPE", "ALRM", "TERM"}
