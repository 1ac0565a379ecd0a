package main

// connector finds the node that a command is for, and opens sessions with it.
type connector struct {
	*console
	state   string // folder, of --state-dir
	config  string // file, of --config
	master  string // HOST or HOST:PORT, of --master
	local   bool
	verbose bool
}

// withConsole gives a connector with the same flags and another console.
func (c *connector) withConsole(ui *console) *connector {
	other := *c
	other.console = ui
	return &other
}
