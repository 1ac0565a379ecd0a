package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"mlfnode/projects"
)

func newCommand(ui *console) *cobra.Command {
	return &cobra.Command{
		Use: "new NAME", Short: "Create a project from the template, ready to run", Args: oneArgument,
		Example: `  mlfnode new myproject
  mlfnode sweep myproject`,
		RunE: func(_ *cobra.Command, args []string) error {
			parent := filepath.Dir(args[0])
			dir, err := projects.New(filepath.Base(args[0]), parent)
			if err != nil {
				return asUsage(err)
			}
			fmt.Fprintln(ui.stdout, dir)
			ui.say("run it with: mlfnode sweep %s", dir)
			return nil
		},
	}
}

func importCommand(ui *console) *cobra.Command {
	return &cobra.Command{
		Use: "import DIR", Short: "Convert an old project folder (tasks.py, default.py, parameters.yml)",
		Args: oneArgument,
		Long: `Read an old project folder without running anything in it, and write its project.yaml.
What could not be translated is listed.`,
		Example: "  mlfnode import ~/mlframework/chainer",
		RunE: func(_ *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return usage(fmt.Sprintf("%s is not a folder", args[0]), "name the folder that holds tasks.py")
			}
			r, err := projects.Import(args[0])
			if err != nil {
				return asUsage(err)
			}
			fmt.Fprintln(ui.stdout, r.File)
			for _, n := range r.Notes {
				ui.say("not translated: %s", n)
			}
			ui.say("tasks: %s; check them with: mlfnode sweep %s --dry-run", strings.Join(r.Tasks, ", "), args[0])
			return nil
		},
	}
}
