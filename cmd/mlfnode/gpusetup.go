package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"mlfnode/cluster/bootstrap"
	"mlfnode/cluster/bootstrap/gpusetup"
	"mlfnode/cluster/bootstrap/shell"
)

// gpuReport is the result of a host as `gpu-setup --json` prints it.
type gpuReport struct {
	Host string `json:"host"`
	gpusetup.Report
	Problem *shell.Problem `json:"problem,omitempty"`
}

func gpuSetupCommand(ui *console) *cobra.Command {
	var o gpusetup.Options
	r := &clusterFlags{}
	c := &cobra.Command{
		Use: "gpu-setup HOST…", Short: "Set up the NVIDIA container toolkit on hosts, over ssh",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(c.Name()+" needs a host", c.CommandPath()+" --help")
			}
			return nil
		},
		Long: `gpu-setup checks each host step by step, from the hardware to Docker, installs what is missing for
GPUs in containers, and checks again. It works on Ubuntu and Debian, as root or with a sudo that
asks for no password. The driver must already be installed. Docker is not restarted under running
containers, and no machine is rebooted, unless a flag says so. Programs without containers need none
of this.`,
		Example: `  mlfnode gpu-setup hostA --dry-run
  mlfnode gpu-setup ada@hostA hostB --restart-docker`,
		RunE: func(c *cobra.Command, args []string) error { return setUpGPUs(c.Context(), ui, r, o, args) },
	}
	f := c.Flags()
	key := f.StringP("key", "i", "", "private key for ssh, a `FILE` (default: the keys that ssh would use)")
	c.PreRun = func(*cobra.Command, []string) { r.key = *key }
	f.BoolVar(&r.acceptNew, "accept-new", false, "trust hosts that ~/.ssh/known_hosts does not know")
	f.BoolVar(&o.DryRun, "dry-run", false, "only check, and print what would be run")
	f.BoolVar(&o.RestartDocker, "restart-docker", false, "restart Docker even if that ends running containers")
	f.BoolVar(&o.Reboot, "reboot", false, "reboot where nothing else helps; drain the node first")
	f.StringVar(&o.Image, "image", "",
		"`IMAGE` of the test container (default "+gpusetup.DefaultImage+"); - skips the test")
	f.StringVar(&o.Version, "toolkit", "", "`VERSION` of the toolkit to install, as in "+gpusetup.DefaultVersion)
	ui.jsonFlag(c)
	return c
}

func setUpGPUs(ctx context.Context, ui *console, r *clusterFlags, o gpusetup.Options, hosts []string) error {
	over, done, err := sshOptions(ui, r, &bootstrap.Cluster{Key: r.key})
	if err != nil {
		return err
	}
	defer done()
	reports := make([]gpuReport, len(hosts))
	var work sync.WaitGroup
	for i, host := range hosts {
		work.Go(func() { reports[i] = setUpGPUHost(ctx, ui, &over, host, o) })
	}
	work.Wait()
	if ui.json {
		err = ui.printJSON(reports)
	} else {
		for i := range reports {
			printGPUReport(ui, &reports[i])
		}
	}
	for _, r := range reports {
		if err == nil && (r.Problem != nil || r.Outcome == gpusetup.Stopped) {
			err = &failure{code: exitFailed}
		}
	}
	return err
}

func setUpGPUHost(
	ctx context.Context, ui *console, over *bootstrap.Options, host string, o gpusetup.Options,
) gpuReport {
	r := gpuReport{Host: host}
	m, _, err := over.Dial(ctx, host)
	if err == nil {
		defer m.Close()
		r.Report, err = gpusetup.Setup(ctx, m, o, func(s gpusetup.Step) {
			if s.Verdict == "" { // the step starts and may take minutes; verdicts are in the report
				ui.say("%s: %s: %s …", host, s.Check, oneLine(s.Text))
			}
		})
	}
	if err != nil {
		r.Problem = bootstrap.ProblemOf(err)
	}
	return r
}

func printGPUReport(ui *console, r *gpuReport) {
	if r.Problem != nil {
		printProblem(ui, r.Host, r.Problem)
		return
	}
	for _, c := range r.Checks {
		verdict := string(c.Verdict)
		if c.Fixed {
			verdict = "fixed"
		}
		fmt.Fprintf(ui.stdout, "%s: %-6s %-13s %s\n", r.Host, verdict, c.Name, oneLine(cmp.Or(c.Cause, c.Note)))
		if c.Cure != "" && !c.Fixed {
			fmt.Fprintf(ui.stdout, "  try: %s\n", oneLine(c.Cure))
		}
		if r.DryRun && c.Program != "" {
			program := strings.ReplaceAll(strings.TrimSpace(c.Program), "\n", "\n    ")
			fmt.Fprintf(ui.stdout, "  would run as root:\n    %s\n", program)
		}
	}
	fmt.Fprintf(ui.stdout, "%s: %s\n", r.Host, r.Outcome)
}
