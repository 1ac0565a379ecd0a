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
		switch code, ok := exitCode(request); {
		case ok && code == 0:
			return nil
		case ok:
			return &ExitError{Code: code}
		}
	}
	return errNoExit
}

// exitCode reads how a program ended, where a request says it.
func exitCode(request *ssh.Request) (code int, ok bool) {
	switch request.Type {
	case "exit-status":
		var status struct{ Code uint32 }
		err := ssh.Unmarshal(request.Payload, &status)
		return int(status.Code), err == nil
	case "exit-signal":
		var signal struct {
			Name        string
			Core        bool
			Words, Lang string
		}
		err := ssh.Unmarshal(request.Payload, &signal)
		return 128 + signalNumber(signal.Name), err == nil
	}
	return 0, false
}

// signalNumber gives the number that a signal has on Linux, 0 for one that RFC 4254 does not name.
func signalNumber(name string) int {
	names := []string{"", "HUP", "INT", "QUIT", "ILL", "", "ABRT", "", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM"}
	return max(0, slices.Index(names, name))
}
