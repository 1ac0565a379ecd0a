package main

// badInputs is the table of what users get wrong.
func badInputs() []badInput {
	project := func(task string) map[string]string {
		return map[string]string{"p/project.yaml": "tasks:\n  t:\n" + task}
	}
	axes := func(text string) map[string]string {
		return map[string]string{"p/project.yaml": "tasks:\n  t:\n    command: [\"true\"]\n    parameters: parameters.yml\n", "p/parameters.yml": text}
	}
	return []badInput{
		// parameters.yml
		{name: "null", files: axes("lr: [0.1]\nepoch:\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:7: epoch has no value (null). Give a value, write \"\" for empty text, or false to leave the option out.\n"},
		{name: "nested map", files: axes("opt:\n  lr: 0.1\n  deep: {a: 1}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:3: opt is a map with the unknown key \"lr\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys.\n"},
		{name: "nested list", files: axes("lr: [0.1, [0.2, [0.3]]]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:17: lr has a list in a list. Write the arguments in one flat list.\n"},
		{name: "empty list", files: axes("lr: []\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:5: lr has an empty list. Give it one value or more, or leave the key out.\n"},
		{name: "empty interval", files: axes("epoch: !!python/tuple [5, 5]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:8: epoch has no values because its interval starts and ends at 5. The end is not part of an interval, so make it larger, or give the one value alone.\n"},
		{name: "backward interval", files: axes("epoch: {start: 5, end: 1}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:8: epoch has no values because step 1 leads away from 5 to 1. Swap start and end, or change the sign of the step.\n"},
		{name: "zero step", files: axes("epoch: !!python/tuple [1, 5, 0]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:8: epoch has step 0. Use a step that leads from start to end.\n"},
		{name: "interval of one", files: axes("epoch: !!python/tuple [1]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:8: epoch is an interval of 1 number. Give start, end and, if it isn't 1, step: an interval holds start but not end.\n"},
		{name: "interval of words", files: axes("epoch: !!python/tuple [low, high]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:8: epoch has the start \"low\", which is not a number. Use a plain decimal number, like 10, -0.5 or 1e-3.\n"},
		{name: "duplicate key", files: axes("lr: 1\nunit: 2\nlr: 3\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:3:1: the key lr is given twice, first in line 1. Put all its values in one list.\n"},
		{name: "duplicate value", files: axes("lr: [1, 2, 1]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:12: lr has the value 1 twice. Keep it once: it would run the same point again.\n"},
		{name: "unknown tag", files: axes("lr: !!python/object/apply:os.system [\"touch ran\"]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:5: lr has the unknown tag !!python/object/apply:os.system. Leave it out; !!python/tuple on an interval is the only special tag.\n"},
		{name: "not a map", files: axes("- lr\n- unit\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:1: the file is not a map of parameters to values. Write lines like batchsize: [50, 100].\n"},
		{name: "tab", files: axes("lr:\n\t- 1\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:1: a tab is used where YAML requires spaces. Use spaces to indent.\n"},
		{name: "unclosed", files: axes("lr: [1, 2\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:1: this is not valid YAML: did not find expected ',' or ']'. Check this line and those before it for a missing colon, quote, bracket or space.\n"},
		{name: "text for a file", files: axes("just words\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:1: the file is not a map of parameters to values. Write lines like batchsize: [50, 100].\n"},
		{name: "alias bomb", files: axes("a: &a [1, 2]\nb: &b [*a, *a]\nc: [*b, *b]\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:8: c has a list in a list. Write the arguments in one flat list.\n" +
				"p/parameters.yml:2:8: c has a list in a list. Write the arguments in one flat list.\n" +
				"p/parameters.yml:2:12: b has the value [1,2] twice. Keep it once: it would run the same point again.\n"},
		{name: "two documents", files: axes("lr: 1\n---\nunit: 2\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:2:1: a second document starts here. Keep one document in the file, without '---' between parts.\n"},
		{name: "linspace of nothing", files: axes("lr: {linspace: [0, 1, 0]}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:5: lr asks for \"0\" values. Give the number of values as a whole number from 1.\n"},
		{name: "logspace of two", files: axes("lr: {logspace: [0, 1]}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:16: lr needs a list of three numbers for logspace. Give a, b and n, like [-4, -1, 4].\n"},
		{name: "unknown form", files: axes("lr: {from: 0, to: 1}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:6: lr is a map with the unknown key \"from\". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys.\n"},
		{name: "bad key", files: axes("\"learning rate\": 1\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:1: the key \"learning rate\" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.\n"},
		{name: "huge count", files: axes("a: {start: 0, end: 1e18}\nb: {start: 0, end: 1e18}\n"), args: "sweep p",
			want: "mlfnode: the space has more points than 64 bits can count. Give fewer values or split it into several sweeps.\n"},
		{name: "several problems", files: axes("a: []\nb: null\nc: {start: 1, end: 1}\n"), args: "sweep p",
			want: "mlfnode: p/parameters.yml:1:4: a has an empty list. Give it one value or more, or leave the key out.\n" +
				"p/parameters.yml:2:4: b has no value (null). Give a value, write \"\" for empty text, or false to leave the option out.\n" +
				"p/parameters.yml:3:4: c has no values because its interval starts and ends at 1. The end is not part of an interval, so make it larger, or give the one value alone.\n"},
		{name: "no such file", files: project("    command: [\"true\"]\n    parameters: grid.yml\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:17: the parameters file grid.yml can't be read: no such file or directory. Give the path of a file in the project's folder, or leave the field out.\n"},

		// project.yaml
		{name: "unknown field", files: project("    comand: [\"true\"]\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:3:5: the task t has the unknown field \"comand\". Did you mean command?\n"},
		{name: "no command", files: project("    timeout: 2h\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:2:3: the task t has no command. Add a line like command: [\"python3\", \"-u\", \"main.py\"].\n"},
		{name: "bad duration", files: project("    command: [\"true\"]\n    timeout: 2 hours\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:14: timeout is \"2 hours\", which is not a duration. Write it like 2h, 1h30m, 90s or 1d; a plain number is in seconds.\n"},
		{name: "bad memory", files: project("    command: [\"true\"]\n    resources: {memory: lots}\n"),
			args: "sweep p",
			want: "mlfnode: p/project.yaml:4:25: memory is \"lots\", which is not a size. Write it like 1GiB, 500MB or as bytes.\n"},
		{name: "negative cpus", files: project("    command: [\"true\"]\n    resources: {cpus: -1}\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:23: cpus is \"-1\", which is not a valid number. Give a number like 1 or 0.5.\n"},
		{name: "too many cpus", files: project("    command: [\"true\"]\n    resources: {cpus: 64}\n"), args: "sweep p",
			want: "mlfnode: one trial needs 64 processors, this machine has 2\n" +
				"  try: lower resources.cpus in project.yaml\n"},
		{name: "too much memory",
			files: project("    command: [\"true\"]\n    resources: {memory: 64GiB}\n"), args: "sweep p",
			want: "mlfnode: one trial needs 64 GiB of memory, this machine has 1.0 GiB\n" +
				"  try: lower resources.memory in project.yaml\n"},
		{name: "gpu", files: project("    command: [\"true\"]\n    resources: {gpus: 1}\n"), args: "sweep p",
			want: "mlfnode: this machine has 0 GPUs, and a trial needs 1 GPU\n" +
				"  try: lower resources in project.yaml, or ask for no GPU to use the processors alone\n"},
		{name: "gpus of one and a half",
			files: project("    command: [\"true\"]\n    resources: {gpus: 1.5}\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:16: gpus is 1.5: above 1 it must be a whole number. Give a whole number, or a fraction below 1 for a share of one GPU.\n"},
		{name: "gpus of a profile",
			files: project("    command: [\"true\"]\n    resources: {gpus: 2, gpu_profile: 1g.10gb}\n"),
			args:  "sweep p",
			want:  "mlfnode: p/project.yaml:4:16: gpu_profile names a MIG instance, and gpus is 2. Leave gpus out: a program sees one MIG instance.\n"},
		{name: "gpu ids", files: project("    command: [\"true\"]\n    gpu_ids: number\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:14: gpu_ids is \"number\". Write uuid or index.\n"},
		{name: "gpu memory", files: project("    command: [\"true\"]\n    resources: {gpu_memory: 1GiB}\n"),
			args: "sweep p",
			want: "mlfnode: this machine has 0 GPUs, and a trial needs 1 GPU\n" +
				"  try: lower resources in project.yaml, or ask for no GPU to use the processors alone\n"},
		{name: "image", files: project("    command: [\"true\"]\n    image: Python 3\n"), args: "sweep p --dry-run",
			want: "mlfnode: p/project.yaml:4:12: \"Python 3\" does not name an image. Write it like python:3.12-slim or registry.lab:5000/team/train:1.\n"},
		{name: "bad regex", files: project("    command: [\"true\"]\n    metrics: {regex: \"(loss\"}\n"),
			args: "sweep p",
			want: "mlfnode: p/project.yaml:4:22: the regex is not valid: missing closing ): `(loss`. Use the syntax of Go's regexp package, and single quotes around it.\n"},
		{name: "bad goal", files: project("    command: [\"true\"]\n    objective: {metric: loss, goal: small}\n"),
			args: "sweep p",
			want: "mlfnode: p/project.yaml:4:37: objective.goal is \"small\". Write maximize or minimize.\n"},
		{name: "bad exclude", files: project("    command: [\"true\"]\n    exclude: [\"unit >\"]\n"), args: "sweep p",
			want: "mlfnode: exclude \"unit >\" does not work: unexpected end of expression at column 6. Write a condition on the axes, like batchsize == 500 and unit > 100; put text values in quotes.\n"},
		{name: "exclude of no axis", files: project("    command: [\"true\"]\n    exclude: [\"unit > 3\"]\n"),
			args: "sweep p --set lr=1",
			want: "mlfnode: exclude \"unit > 3\" names unit, which is not an axis. The axes are lr.\n"},
		{name: "exclude of all", files: project("    command: [\"true\"]\n    exclude: [\"lr > 0\"]\n"),
			args: "sweep p --set lr=1,2",
			want: "mlfnode: the exclude expressions leave no point of the space. Loosen them.\n"},
		{name: "artifacts outside",
			files: project("    command: [\"true\"]\n    artifacts: [\"../**\"]\n"), args: "sweep p",
			want: "mlfnode: p/project.yaml:4:17: the pattern \"../**\" leaves the trial's folder. Patterns start at the trial's folder: no leading '/' and no '..'.\n"},
		{name: "unknown default",
			files: map[string]string{"p/project.yaml": "default: tran\ntasks:\n  train: {command: [\"true\"]}\n"},
			args:  "sweep p",
			want:  "mlfnode: p/project.yaml:1:10: default is \"tran\", which is not a task. The tasks are train.\n"},
		{name: "unknown task", files: map[string]string{"p/project.yaml": "tasks:\n  train: {command: [\"true\"]}\n"},
			args: "sweep p tran",
			want: "mlfnode: the project p has no task tran. Its tasks are train\n"},
		{name: "several tasks", files: map[string]string{"p/project.yaml": "tasks:\n  a: {command: [\"true\"]}\n  b: {command: [\"true\"]}\n"}, args: "sweep p",
			want: "mlfnode: the project p has several tasks and no default. Name one of a, b\n"},
		{name: "empty project", files: map[string]string{"p/project.yaml": ""}, args: "sweep p",
			want: "mlfnode: the project p has no tasks. Add one to its project.yaml:\n" +
				"name: p\n" +
				"tasks:\n" +
				"  train:\n" +
				"    command: [\"python3\", \"-u\", \"main.py\"]\n"},
		{name: "no project.yaml", files: map[string]string{"p/": ""}, args: "sweep p",
			want: "mlfnode: p has no project.yaml. Write one like this:\n" +
				"name: p\n" +
				"tasks:\n" +
				"  train:\n" +
				"    command: [\"python3\", \"-u\", \"main.py\"]\n"},
		{name: "no project", args: "sweep nothing",
			want: "mlfnode: there is no project nothing: no folder nothing or projects/nothing, and no example of this name. The examples are chainer and bowcnn; mlfnode new nothing makes a project\n"},
		{name: "file for project", files: map[string]string{"prog.py": "print(1)\n"}, args: "sweep prog.py",
			want: "mlfnode: prog.py is a file, not a project's folder. To run one command write mlfnode sweep -- python3 prog.py\n"},

		// --set and other flags
		{name: "set without value", args: "sweep --set lr -- true",
			want: "mlfnode: --set \"lr\" does not work: it has no '='. Write key=value, for example lr=0.1,0.01 or epoch=5:20:5.\n"},
		{name: "set of nothing", args: "sweep --set lr= -- true",
			want: "mlfnode: --set \"lr=\" does not work: there is no value after '='. For an empty text write lr='\"\"' in the shell.\n"},
		{name: "set without name", args: "sweep --set =1 -- true",
			want: "mlfnode: --set \"=1\" does not work: a key is empty. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.\n"},
		{name: "set with gap", args: "sweep --set lr=1,,2 -- true",
			want: "mlfnode: --set \"lr=1,,2\" does not work: a value in the list is empty. Remove one comma, or write \"\" for empty text, like lr='a,\"\"'.\n"},
		{name: "set of zero step", args: "sweep --set lr=1:5:0 -- true",
			want: "mlfnode: --set \"lr=1:5:0\" does not work: lr has step 0. Use a step that leads from start to end.\n"},
		{name: "set of one bound", args: "sweep --set lr=1: -- true",
			want: "mlfnode: --set \"lr=1:\" does not work: the interval 1: lacks a number. Write start:end or start:end:step, like lr=5:20:5. If it is text, put it in quotes: lr='\"1:\"'.\n"},
		{name: "set twice", args: "sweep --set lr=1 --set lr=2 -- true",
			want: "mlfnode: --set gives lr twice. Give all its values at once, like lr=1,2,3.\n"},
		{name: "set with blank name", args: "sweep --set learning~rate=1 -- true",
			want: "mlfnode: --set \"learning rate=1\" does not work: the key \"learning rate\" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.\n"},
		{name: "set equal values", args: "sweep --set lr=1,1 -- true",
			want: "mlfnode: --set \"lr=1,1\" does not work: lr has the value 1 twice. Keep it once: it would run the same point again.\n"},
		{name: "no parameter file", args: "sweep --parameters none.yml -- true",
			want: "mlfnode: the parameter file none.yml can't be read: no such file or directory\n" +
				"  try: a path from the folder you are in\n"},
		{name: "parameter file a folder", files: map[string]string{"d/": ""}, args: "sweep --parameters d -- true",
			want: "mlfnode: the parameter file d can't be read: is a directory\n" +
				"  try: a path from the folder you are in\n"},
		{name: "negative parallel", args: "sweep --max-parallel -1 -- true",
			want: "mlfnode: --max-parallel and --limit must not be negative\n" +
				"  try: leave it out for no limit\n"},
		{name: "priority a word", args: "sweep --priority high -- true",
			want: "mlfnode: --priority takes a whole number, not \"high\"\n" +
				"  try: mlfnode sweep --help\n"},
		{name: "timeout a word", args: "sweep --timeout soon -- true",
			want: "mlfnode: --timeout \"soon\" does not work: timeout is \"soon\", which is not a duration. Write it like 2h, 1h30m, 90s or 1d; a plain number is in seconds.\n"},
		{name: "bad state", args: "trials x-1 --state done",
			want: "mlfnode: \"done\" is not a state of a trial\n" +
				"  try: pending, running, succeeded, failed or cancelled\n"},
		{name: "best of none", args: "results x-1 --best 0",
			want: "mlfnode: --best must be at least 1\n" +
				"  try: --best 5\n"},
		{name: "extend without values", args: "extend x-1",
			want: "mlfnode: extend needs values to add\n" +
				"  try: mlfnode extend x-1 --set lr=0.3\n"},
		{name: "pause a trial", args: "pause x-1/3",
			want: "mlfnode: this command acts on a whole sweep\n" +
				"  try: name it without the trial: x-1\n"},
		{name: "bad settings", files: map[string]string{"node.yaml": "cpus: many\nmemry: 1GiB\n"},
			args: "sweeps --config node.yaml",
			want: "mlfnode: node.yaml:2: there is no setting memry\n" +
				"  try: the node.yaml that comes with mlfnode explains every setting\n"},
		{name: "broken settings", files: map[string]string{"node.yaml": "cpus: [1\n"},
			args: "sweeps --config node.yaml",
			want: "mlfnode: node.yaml:1: this is not valid YAML: did not find expected ',' or ']'\n" +
				"  try: the node.yaml that comes with mlfnode explains every setting\n"},
		{name: "wrong kind of settings", files: map[string]string{"node.yaml": "cpus: [1]\nretention: 5\n"},
			args: "sweeps --config node.yaml",
			want: "mlfnode: node.yaml:1: the value does not fit the setting\n" +
				"node.yaml:2: the value does not fit the setting\n" +
				"  try: the node.yaml that comes with mlfnode explains every setting\n"},
		{name: "no settings", args: "sweeps --config none.yaml",
			want: "mlfnode: the settings file none.yaml can't be read: no such file or directory\n" +
				"  try: the node.yaml that comes with mlfnode explains every setting\n"},

		{name: "bad retention",
			files: map[string]string{"node.yaml": "node: a b\nretention:\n  sweeps: -1\n  age: old\n"},
			args:  "sweeps --config node.yaml",
			want: "mlfnode: node.yaml, node: \"a b\" is not a valid node name; use letters, digits, - and _\n" +
				"node.yaml, retention.sweeps: \"-1\" is not a whole number of at least 0\n" +
				"node.yaml, retention.age: \"old\" is not a duration; write one such as 90d or 36h\n" +
				"  try: the node.yaml that comes with mlfnode explains every setting\n"},
		{name: "flag without value", args: "sweep --priority",
			want: "mlfnode: flag needs an argument: --priority\n" +
				"  try: mlfnode sweep --help\n"},
		{name: "arguments for none", args: "sweeps chainer-1",
			want: "mlfnode: sweeps takes no arguments, but was given \"chainer-1\"\n" +
				"  try: mlfnode sweeps --help\n"},
		{name: "attempt of a sweep", args: "logs x-1 --attempt 2",
			want: "mlfnode: --attempt must be at least 1, and needs one trial\n" +
				"  try: mlfnode logs chainer-1/17 --attempt 2\n"},
		{name: "bad sort", args: "trials x-1 --offset -1",
			want: "mlfnode: --limit and --offset must not be negative\n" +
				"  try: --limit 0 shows all\n"},

		// state folders that can't be
		{name: "state a file", files: map[string]string{"prog": ""},
			args: "sweep --state-dir prog --set a=1 -- true", code: exitFailed,
			want: "mlfnode: the state folder prog can't be created: not a directory\n" +
				"  try: choose another one with --state-dir\n"},
		{name: "state where none can be", args: "sweep --state-dir /proc/none --set a=1 -- true", code: exitFailed,
			want: "mlfnode: the state folder /proc/none can't be created: no such file or directory\n" +
				"  try: choose another one with --state-dir\n"},
		{name: "state where none can be, in the background",
			args: "sweep --detach --state-dir /proc/none --set a=1 -- true", code: exitFailed,
			want: "mlfnode: the state folder /proc/none can't be created: no such file or directory\n" +
				"  try: choose another one with --state-dir\n"},

		// commands that are not there
		{name: "no program", args: "sweep --set a=1 -- no-such-program",
			want: "mlfnode: \"no-such-program\" is not found in PATH\n" +
				"  try: check the name, or give the program's path\n"},
		{name: "no program by path", args: "sweep --set a=1 -- ./no-such-program",
			want: "mlfnode: there is no program ./no-such-program\n" +
				"  try: check the path; a relative one is resolved from the project's folder\n"},
		{name: "folder for program", files: map[string]string{"prog/": ""}, args: "sweep --set a=1 -- ./prog",
			want: "mlfnode: ./prog is a folder, not a program\n" +
				"  try: name a program in it\n"},
		{name: "not executable", files: map[string]string{"prog": "#!/bin/sh\n"}, args: "sweep --set a=1 -- ./prog",
			want: "mlfnode: ./prog is not executable\n" +
				"  try: chmod +x it, or run it with its interpreter\n"},

		// bundles
		{name: "link out", files: map[string]string{"prog.py": "", "data": "-> /etc"},
			args: "sweep --set a=1 -- python3 prog.py",
			want: "mlfnode: the link data points to /etc, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore\n"},
		{name: "link up", files: map[string]string{"prog.py": "", "d/data": "-> ../../x"},
			args: "sweep --set a=1 -- python3 prog.py",
			want: "mlfnode: the link d/data points to ../../x, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore\n"},
		{name: "home folder", files: map[string]string{"prog.py": "", "home": "-> ."},
			args: "sweep --set a=1 -- python3 prog.py",
			want: "mlfnode: all files of your home folder would travel to the workers, because prog.py is in it. Move prog.py to a folder of its own and run the command there\n"},
		{name: "control character", files: map[string]string{"prog.py": "", "a\nb": ""},
			args: "sweep --set a=1 -- python3 prog.py",
			want: "mlfnode: the file name \"a\\nb\" has characters that not every machine supports; rename it, or name it in .mlfignore\n"},

		// projects
		{name: "new there", files: map[string]string{"p/": ""}, args: "new p",
			want: "mlfnode: p already exists; choose another name\n"},
		{name: "new nowhere", args: "new no/where",
			want: "mlfnode: there is no folder no to make the project in\n"},
		{name: "new bad name", args: "new my~project",
			want: "mlfnode: \"my project\" is not a valid project name; use lowercase letters, digits and dashes, as in my-project\n"},
		{name: "import nowhere", args: "import none",
			want: "mlfnode: none is not a folder\n" +
				"  try: name the folder that holds tasks.py\n"},
		{name: "import nothing", files: map[string]string{"p/": ""}, args: "import p",
			want: "mlfnode: p has no tasks.py, so it is not an old project; to make a new one: mlfnode new NAME\n"},
	}
}
