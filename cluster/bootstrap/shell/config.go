package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kevinburke/ssh_config"

	"mlfnode/grid/lazyregexp"
)

// config is what the configuration files of OpenSSH's client say: the user's first, then the machine's.
type config struct{ files []*ssh_config.Config }

// systemConfig is where OpenSSH's client looks after the user's own file.
const systemConfig = "/etc/ssh/ssh_config"

// includeDepth is how deep OpenSSH lets files include one another.
const includeDepth = 16

// loadConfig reads the file named, or else the user's and the machine's where there are any.
func loadConfig(file, home string) (*config, error) {
	if file != "" {
		c, err := decodeConfig(file, filepath.Join(home, ".ssh"))
		if err != nil {
			return nil, err
		}
		return &config{files: []*ssh_config.Config{c}}, nil
	}
	all := &config{}
	for _, path := range []string{filepath.Join(home, ".ssh", "config"), systemConfig} {
		c, err := decodeConfig(path, filepath.Dir(path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		}
		all.files = append(all.files, c)
	}
	return all, nil
}

func decodeConfig(path, dir string) (*ssh_config.Config, error) {
	text, err := readConfig(path, dir, 0)
	if err != nil {
		return nil, err
	}
	c, err := ssh_config.DecodeBytes([]byte(text))
	if err != nil {
		return nil, &Problem{Cause: fmt.Sprintf("%s is no configuration of ssh (%v)", path, err),
			Cure: "mend the file; `ssh -G HOST` shows what ssh makes of it"}
	}
	return c, nil
}

var (
	directive = lazyregexp.New(`(?i)^\s*(host|match|include)(?:\s*=\s*|\s+)(.*?)\s*$`)
	// plainMatch are the Match lines that need no more than the name: the library knows them.
	plainMatch = lazyregexp.New(`(?i)^(all|host\s+\S+)$`)
)

// readConfig gives the text of a file with those it includes, without the Match blocks that the library cannot weigh: it would
// refuse the whole file for them, and most of them say nothing about the machines that are meant here.
func readConfig(path, dir string, depth int) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	block, dropped := "Host *", false
	for line := range strings.Lines(string(data)) {
		word, rest := split(line)
		switch word {
		case "host":
			block, dropped = strings.TrimSpace(line), false
		case "match":
			block, dropped = strings.TrimSpace(line), !plainMatch.Get().MatchString(rest)
		case "include":
			if !dropped && depth < includeDepth {
				// What follows the included text belongs to the block that was open before it.
				out.WriteString(includes(rest, dir, depth+1) + "\n" + block + "\n")
			}
			continue
		}
		if !dropped {
			out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return out.String(), nil
}

func split(line string) (word, rest string) {
	if m := directive.Get().FindStringSubmatch(line); m != nil {
		return strings.ToLower(m[1]), m[2]
	}
	return "", ""
}

// includes gives the texts of the files that an Include names; as with OpenSSH, one that cannot be read is passed over.
func includes(patterns, dir string, depth int) string {
	var out strings.Builder
	for _, p := range strings.Fields(patterns) {
		p = strings.Trim(p, `"`)
		if home, err := os.UserHomeDir(); err == nil && strings.HasPrefix(p, "~/") {
			p = filepath.Join(home, p[2:])
		}
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		paths, _ := filepath.Glob(p)
		for _, path := range paths {
			if text, err := readConfig(path, dir, depth); err == nil {
				out.WriteString(text + "\n")
			}
		}
	}
	return out.String()
}

// first gives the first value of an option, "" for none.
func (c *config) first(host, option string) string {
	for _, f := range c.files {
		if v, err := f.Get(host, option); err == nil && v != "" {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// whichever gives the first of options that shut out one another, its name in small letters, with its value as it stands there.
func (c *config) whichever(host string, options ...string) (option, value string) {
	for _, f := range c.files {
		for _, block := range f.Hosts {
			if !block.Matches(host) {
				continue
			}
			for _, node := range block.Nodes {
				line, ok := node.(*ssh_config.KV)
				if ok && slices.ContainsFunc(options, func(o string) bool { return strings.EqualFold(o, line.Key) }) {
					return strings.ToLower(line.Key), line.Value
				}
			}
		}
	}
	return "", ""
}

// every gives all values of an option that may be given more than once.
func (c *config) every(host, option string) []string {
	var all []string
	for _, f := range c.files {
		values, err := f.GetAll(host, option)
		if err != nil {
			continue
		}
		for _, v := range values {
			all = append(all, strings.Trim(v, `"`))
		}
	}
	return all
}
