package main

import (
	"github.com/spf13/cobra"

	"mlfnode/node/config"
	"mlfnode/projects"
)

func schemaCommand(ui *console) *cobra.Command {
	schemas := map[string]func() ([]byte, error){
		"project": projects.Schema,
		"node":    func() ([]byte, error) { return config.Schema, nil },
	}
	return &cobra.Command{
		Use: "schema project|node", Short: "Print the JSON Schema of project.yaml or node.yaml, for editors",
		Long: `Print the JSON Schema of project.yaml or of node.yaml. An editor that uses the YAML language server
completes and checks a file whose first line is, for example,
  # yaml-language-server: $schema=` + projects.SchemaFile + `
"mlfnode new" writes this line and the file.`,
		Example:   "  mlfnode schema project > " + projects.SchemaFile,
		ValidArgs: []string{"node", "project"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || schemas[args[0]] == nil {
				return usage("schema takes project or node", "mlfnode schema project")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := schemas[args[0]]()
			if err != nil {
				return err
			}
			_, err = ui.stdout.Write(text)
			return err
		},
	}
}
