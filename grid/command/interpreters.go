package command

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// interpretation is how a command treats one of its words.
type interpretation uint8

const (
	asText interpretation = iota // literally
	// Another shell, perhaps on another machine, splits it into words, or make expands it: no
	// special characters are safe.
	asWords
	asCode // the command runs the word
)

// Commands that read their words or their input as code. The callers run the command that follows
// their options.
const (
	wrappers = " command builtin exec env sudo doas nice nohup timeout time stdbuf setsid ionice chrt " +
		"taskset srun mpirun xargs setpriv unshare nsenter chroot numactl fakeroot systemd-run "
	launchers     = " docker podman kubectl ssh apptainer singularity chroot nsenter unshare busybox "
	evaluators    = " eval let trap alias unset read mapfile readarray complete compgen bind "
	optionRunners = " su runuser sg flock script "
	foreignShells = " csh tcsh fish nu elvish xonsh pwsh rc es "
	resplitters   = " ssh rsh mosh pdsh clush dsh vagrant parallel watch sbatch bsub tmux " +
		"screen hyperfine nix-shell make gmake "
	inputRunners = " at batch sbatch qsub bsub rsh ssh su runuser parallel source . "
)

func isOneOf(set, word string) bool {
	return word != "" && !strings.ContainsRune(word, ' ') && strings.Contains(set, " "+path.Base(word)+" ")
}

// commandIndex returns the index of the command itself, after env, sudo, timeout and the like.
func commandIndex(words []string) int {
	i := 0
	for i < len(words) && isOneOf(wrappers, words[i]) {
		for i++; i < len(words) && (strings.HasPrefix(words[i], "-") || strings.Contains(words[i], "=") ||
			words[i] != "" && words[i][0] >= '0' && words[i][0] <= '9'); i++ {
		}
	}
	return i
}

// interpretationOf returns how a command line treats the word at an index; the index after the last
// word stands for appended options. Words that are not known before the command runs are empty.
func interpretationOf(words []string, at int) interpretation {
	c := commandIndex(words)
	if splitsString(words, at) {
		return asCode
	}
	if c >= len(words) || at <= c {
		return asText
	}
	if k := scriptArgument(words); k >= 0 && at == k {
		return asCode
	}
	switch name := words[c]; {
	case isOneOf(evaluators, name):
		return asCode
	case isOneOf(optionRunners, name) || isOneOf(foreignShells, name):
		if at == scriptOption(words, c+1, at) {
			return asCode
		}
	case isOneOf(resplitters, name):
		isList := func(w string) bool { return strings.HasPrefix(w, ":::") }
		if name == "parallel" && at < len(words) && slices.ContainsFunc(words[c:at], isList) {
			return asText // it quotes them itself
		}
		return asWords
	}
	return asText
}

// splitsString reports whether a word is the command line of `env -S`.
func splitsString(words []string, at int) bool {
	if at >= len(words) || !isOneOf(" env ", words[0]) {
		return false
	}
	for k := 1; k <= at; k++ {
		if strings.HasPrefix(words[k], "-S") && (k == at || len(words[k]) == 2 && k+1 == at) ||
			strings.HasPrefix(words[k], "--split-string") && k == at {
			return true
		}
	}
	return false
}

// xargsRuns reports whether xargs puts its input into a script, as in `xargs -I% sh -c '%'`.
func xargsRuns(words []string) bool {
	k := scriptArgument(words)
	for i, w := range words {
		if !isOneOf(" xargs ", w) || k < i {
			continue
		}
		for j := i + 1; j < k; j++ {
			mark, found := strings.CutPrefix(words[j], "-I")
			if found && mark == "" {
				mark = words[j+1]
			}
			if found && mark != "" && strings.Contains(words[k], mark) {
				return true
			}
		}
	}
	return false
}

// scriptOption returns the index of a script after -c, --command or --command=, or -1. at is the
// index in question.
func scriptOption(words []string, from, at int) int {
	for k := from; k < len(words); k++ {
		w := words[k]
		switch {
		case strings.HasPrefix(w, "--"):
			if w == "--command" && at == k+1 || strings.HasPrefix(w, "--command=") && at == k {
				return at
			}
		case strings.HasPrefix(w, "-") && strings.ContainsAny(w, "cC") && (at == k || at == k+1):
			return at
		}
	}
	return -1
}

// runsInput reports whether a command reads its standard input as a script.
func runsInput(words []string) bool {
	c := commandIndex(words)
	if xargsRuns(words) {
		return true
	}
	if c >= len(words) {
		return false
	}
	if isOneOf(launchers, words[c]) {
		for i := c + 1; i < len(words); i++ {
			for _, inner := range [][]string{words[i:], strings.Fields(words[i])} {
				if len(inner) > 0 && (isOneOf(shells, inner[0]) || isOneOf(foreignShells, inner[0])) &&
					runsInput(inner) {
					return true
				}
			}
		}
	}
	name, operands := words[c], []string{}
	for _, w := range words[c+1:] {
		switch {
		case w == "-s" && isOneOf(shells, name):
			return true
		case !strings.HasPrefix(w, "-") || w == "-":
			operands = append(operands, w)
		case strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "--") && strings.Contains(w, "c") &&
			(isOneOf(shells, name) || isOneOf(foreignShells, name) || isOneOf(optionRunners, name)):
			return false
		}
	}
	switch {
	case isOneOf(shells, name) || isOneOf(foreignShells, name) || isOneOf(inputRunners, name):
	default:
		return false
	}
	if len(operands) == 0 || isOneOf(" su runuser ", name) {
		return true
	}
	first := operands[0]
	fromInput := first == "-" || strings.HasPrefix(first, "/dev/stdin") || strings.HasPrefix(first, "/dev/fd/") ||
		strings.HasPrefix(first, "/proc/self/fd/")
	return fromInput || (name == "at" || isOneOf(" ssh rsh ", name)) && len(operands) == 1
}

// runsInputIn reports whether any command in part of a script reads its standard input as a script.
func runsInputIn(n syntax.Node) bool {
	found := false
	syntax.Walk(n, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok && runsInput(literals(c.Args)) {
			found = true
		}
		return !found
	})
	return found
}

// literals returns the words of a command without their quotes. Words with an expansion are empty,
// except for one that names a shell, like "$SHELL".
func literals(args []*syntax.Word) []string {
	words := make([]string, len(args))
	for i, w := range args {
		text, ok := literal(w.Parts)
		if !ok && i == 0 && namesShell(w) {
			text = "sh"
		}
		words[i] = text
	}
	return words
}

func namesShell(w *syntax.Word) bool {
	found := false
	syntax.Walk(w, func(n syntax.Node) bool {
		if l, ok := n.(*syntax.Lit); ok {
			name := strings.ToLower(l.Value)
			found = found || name == "shell" || isOneOf(shells, name)
		}
		return true
	})
	return found
}

// evaluated lists variables whose values are run by shells.
const evaluated = " BASH_ENV ENV PROMPT_COMMAND PS0 PS1 PS2 PS4 "

// checkVariables checks the variables to which a placeholder's value is assigned: arithmetic would
// evaluate the value, and eval and sh -c would run it.
func (s *script) checkVariables(file *syntax.File) {
	from := map[string][]int{} // the placeholders assigned to each variable
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Assign:
			if n.Name != nil && n.Value != nil {
				from[n.Name.Value] = append(from[n.Name.Value], s.placeholdersIn(n.Value)...)
			}
		case *syntax.WordIter:
			for _, w := range n.Items {
				from[n.Name.Value] = append(from[n.Name.Value], s.placeholdersIn(w)...)
			}
		}
		return true
	})
	use := func(n syntax.Node, do func(h *placeholder, name string)) {
		syntax.Walk(n, func(n syntax.Node) bool {
			if l, ok := n.(*syntax.Lit); ok {
				for _, i := range from[l.Value] {
					do(&s.placeholders[i], l.Value)
				}
			}
			return true
		})
	}
	number := func(h *placeholder, _ string) { h.plain = true }
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ArithmExp, *syntax.ArithmCmd, *syntax.LetClause, *syntax.CStyleLoop:
			use(n, number)
		case *syntax.BinaryTest:
			if n.Op >= syntax.TsEql && n.Op <= syntax.TsGtr {
				use(n, number)
			}
		case *syntax.CallExpr:
			words := literals(n.Args)
			k := scriptArgument(words)
			for i, w := range n.Args {
				if i == 0 || i != k && (interpretationOf(words, i) != asCode ||
					isOneOf(" unset read ", words[commandIndex(words)])) {
					continue
				}
				if _, ok := literal(w.Parts); ok { // without expansions, like '...$x...'
					continue
				}
				use(w, func(h *placeholder, name string) {
					if h.refusal == nil {
						h.refusal = h.refuse("in the variable "+name+", whose value a command runs as code",
							`Give it to that script as an argument, like sh -c '... "$1"' sh {`+h.key+"}.")
					}
				})
			}
		}
		return true
	})
}

// placeholdersIn returns the placeholders in part of the script.
func (s *script) placeholdersIn(n syntax.Node) (holes []int) {
	syntax.Walk(n, func(n syntax.Node) bool {
		text := ""
		switch n := n.(type) {
		case *syntax.Lit:
			text = n.Value
		case *syntax.SglQuoted:
			text = n.Value
		}
		for i := range s.placeholders {
			if strings.Contains(text, s.placeholders[i].mark) {
				holes = append(holes, i)
			}
		}
		return true
	})
	return holes
}

func literal(parts []syntax.WordPart) (string, bool) {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case *syntax.Lit:
			for i := 0; i < len(p.Value); i++ {
				if p.Value[i] == '\\' && i+1 < len(p.Value) {
					i++
				}
				b.WriteByte(p.Value[i])
			}
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			inner, ok := literal(p.Parts)
			if !ok {
				return "", false
			}
			b.WriteString(inner)
		default:
			return "", false
		}
	}
	return b.String(), true
}
