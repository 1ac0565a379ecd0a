package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	noticeableSkew = 2 * time.Second // a date over HTTP is exact to a second
	harmfulSkew    = time.Minute     // certificates and tokens become valid or expire at the wrong time
)

// MasterInfo is the master's description of itself.
type MasterInfo struct {
	Time    time.Time // by the master's clock, when it answered
	Version string    // "" if unknown
}

// RemoteMaster is the master of the cluster that the host joins or has joined.
type RemoteMaster struct {
	Seed  string         // its host name or address; empty if there is none yet
	Roots *x509.CertPool // what its certificate must chain to; nil if this host has not joined yet

	AskMaster func(context.Context) (MasterInfo, error) // nil asks for the date only
	// DialBack makes the master connect to this host's tcp or udp port; nil skips the check.
	DialBack func(ctx context.Context, network, port string) error
}

func (m RemoteMaster) seedAddress(port int) string {
	return net.JoinHostPort(m.Seed, strconv.Itoa(port))
}

// checkMaster compares the master's time and version with this host's.
func (h Host) checkMaster(ctx context.Context) []Finding {
	ask := h.AskMaster
	if ask == nil {
		ask = func(ctx context.Context) (MasterInfo, error) { return h.askDate(ctx, h.Ports.API) }
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	began := time.Now()
	a, err := ask(ctx)
	if err != nil {
		return []Finding{warn("clock", "the master does not report its time: "+err.Error(),
			"look at the findings about reaching it")}
	}
	took := time.Since(began)
	found := []Finding{judgeClock(began.Add(took / 2).Sub(a.Time))}
	if a.Version != "" {
		found = append(found, judgeVersions(h.Version, a.Version))
	}
	return found
}

// askDate reads the date from the header of any response, even a refusal.
func (m RemoteMaster) askDate(ctx context.Context, port int) (MasterInfo, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+m.seedAddress(port)+"/", nil)
	if err != nil {
		return MasterInfo{}, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		VerifyConnection: m.verify}}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return MasterInfo{}, err
	}
	defer resp.Body.Close()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return MasterInfo{}, fmt.Errorf("read its date: %w", err)
	}
	return MasterInfo{Time: date.Add(time.Second / 2)}, nil // the header is truncated to the second
}

func judgeClock(ahead time.Duration) Finding {
	cause := fmt.Sprintf("this host's clock is %v %s the master's", ahead.Abs().Round(100*time.Millisecond),
		map[bool]string{true: "ahead of", false: "behind"}[ahead > 0])
	cure := "sudo timedatectl set-ntp true (or start chronyd) on both hosts"
	switch {
	case ahead.Abs() > harmfulSkew:
		return bad("clock", cause, cure)
	case ahead.Abs() > noticeableSkew:
		return warn("clock", cause, cure)
	}
	return fine("clock", "agrees with the master's")
}

// judgeVersions accepts neighbouring minor versions, which work together.
func judgeVersions(ours, masters string) Finding {
	cause := fmt.Sprintf("this host has %s, the master %s", ours, masters)
	cure := "install the master's version here, or update the master first"
	major, minor, ok1 := parseVersion(ours)
	otherMajor, otherMinor, ok2 := parseVersion(masters)
	switch {
	case ours == masters:
		return fine("versions", "both have "+ours)
	case !ok1 || !ok2:
		return warn("versions", cause+", which can't be compared", cure)
	case major != otherMajor || minor-otherMinor > 1 || otherMinor-minor > 1:
		return bad("versions", cause+", more than one minor version apart", cure)
	}
	return fine("versions", cause)
}

// parseVersion reads a version like v1.2.3, with any suffix.
func parseVersion(version string) (major, minor int, ok bool) {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return major, minor, err1 == nil && err2 == nil
}
