package space

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestParseSet(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"lr=0.1", "lr=0.1#"},
		{"lr=0.1,1e-3,010", "lr=0.1#1e-3#010"},
		{"opt=sgd, adam ,rms prop", "opt=sgd adam rms prop"},
		{"epoch=5:20:5", "epoch=5#10#15#"},
		{"epoch=2:5", "epoch=2#3#4#"},
		{"lr=1:0:-0.5", "lr=1#0.5#"},
		{"flag=true,false", "flag=+ -"},
		{"flag=yes,True", "flag=yes +"},
		{`flag="true"`, "flag=true"},
		{`gpu='-1'`, "gpu=-1"},
		{"gpu=-1", "gpu=-1#"},
		{"url=http://host:80/a", "url=http://host:80/a"},
		{"at=12:x,3", "at=12:x 3#"},
		{`name="a,b",'c:d',e`, "name=a,b c:d e"},
		{`name="say \"hi\""`, `name=say "hi"`},
		{`range=1\:2`, "range=1:2"},
		{`range="1:2"`, "range=1:2"},
		{`path=C:\dir\x\,y`, `path=C:\dir\x,y`},
		{`say=it's`, "say=it's"},
		{`empty=""`, "empty="},
		{"eq=a=b", "eq=a=b"},
		{"mac=00:11:22", "mac=00:11:22"},
		{"null=null", "null=null"},

		// Brackets group their contents.
		{"kernel=(3,3)", "kernel=(3,3)"},
		{"kernel=(3,3),(5,5)", "kernel=(3,3) (5,5)"},
		{"cfg={a:1,b:2}", "cfg={a:1,b:2}"},
		{`cfg={"a":1,"b":[1,2]},{"a":2,"b":[]}`, `cfg={"a":1,"b":[1,2]} {"a":2,"b":[]}`},
		{`f=g(x,"a,)b"),h`, `f=g(x,"a,)b") h`},
		{"s=it(is,it's),b", "s=it(is,it's) b"},
		{"s=x[1,2].y,z", "s=x[1,2].y z"},
		{`layers="[64,128]"`, "layers=[64,128]"},
		{`layers="[64,128]","[32]"`, "layers=[64,128] [32]"},
		{`layers=[64\,128]`, "layers=[64,128]"},
		{"smiles=[NH4+],[Na+].[Cl-],C[C@H](N)O", "smiles=[NH4+] [Na+].[Cl-] C[C@H](N)O"},
		{"smiles=[NH4+]", "smiles=[NH4+]"},
		{"face=:),:(", "face=:) :("},
		{"open=a(b", "open=a(b"},

		// Values in the syntax of parameters.yml have the same meaning here.
		{"lr=[0.1,0.2]", "lr=0.1#0.2#"},
		{"lr=[0.1]", "lr=0.1#"},
		{`name=["a,b", 'c', d e, true]`, "name=a,b c d e +"},
		{"lr={logspace: [-4,-1,4]}", "lr=0.0001#0.001#0.01#0.1#"},
		{"lr={linspace: [0, 1, 3]}", "lr=0#0.5#1#"},
		{"n={start: 1, end: 6, step: 2}", "n=1#3#5#"},
		{"n=!!python/tuple [1,4]", "n=1#2#3#"},
	} {
		a, err := ParseSet(c.set)
		if err != nil {
			t.Errorf("%s: %v", c.set, err)
		} else if got := describe([]Axis{a}); got != c.want {
			t.Errorf("%s: got %s, want %s", c.set, got, c.want)
		}
	}
}

func TestBadSet(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"", `--set "" does not work: it has no '='. Write key=value, for example lr=0.1,0.01 or epoch=5:20:5.`},
		{"lr", `--set "lr" does not work: it has no '='. Write key=value, for example lr=0.1,0.01 or epoch=5:20:5.`},
		{"=1", `--set "=1" does not work: a key is empty. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.`},
		{"--lr=1", `--set "--lr=1" does not work: the key "--lr" starts with '-'. Leave the dashes out: they are added when the option is made.`},
		{"a b=1", `--set "a b=1" does not work: the key "a b" contains white space. A key becomes the option --key=value, so use letters, digits, '-', '_' and '.'.`},
		{"lr=",
			`--set "lr=" does not work: there is no value after '='. For an empty text write lr='""' in the shell.`},
		{"lr=1,,2", `--set "lr=1,,2" does not work: a value in the list is empty. Remove one comma, or write "" for empty text, like lr='a,""'.`},
		{"lr=1,", `--set "lr=1," does not work: a value in the list is empty. Remove one comma, or write "" for empty text, like lr='a,""'.`},
		{"lr=,1", `--set "lr=,1" does not work: a value in the list is empty. Remove one comma, or write "" for empty text, like lr='a,""'.`},
		{"lr=1,2,1",
			`--set "lr=1,2,1" does not work: lr has the value 1 twice. Keep it once: it would run the same point again.`},
		{"n=1:5:0", `--set "n=1:5:0" does not work: n has step 0. Use a step that leads from start to end.`},
		{"n=5:1", `--set "n=5:1" does not work: n has no values because step 1 leads away from 5 to 1. Swap start and end, or change the sign of the step. If it is text, put it in quotes: n='"5:1"'.`},
		{"ratio=16:9", `--set "ratio=16:9" does not work: ratio has no values because step 1 leads away from 16 to 9. Swap start and end, or change the sign of the step. If it is text, put it in quotes: ratio='"16:9"'.`},
		{"layers=[64,128],[32]",
			`--set "layers=[64,128],[32]" does not work: the list [64,128] is inside a list. For texts write layers='"[64,128]","[…]"', for single values leave the brackets out.`},
		{"layers=[64],[32]", `--set "layers=[64],[32]" does not work: the list [64] is inside a list. For texts write layers='"[64]","[…]"', for single values leave the brackets out.`},
		{"layers=[[[64]],[32]]",
			`--set "layers=[[[64]],[32]]" does not work: layers has a list in a list. Write the arguments in one flat list. If it is text, put it in quotes: layers='"[[[64]],[32]]"'.`},
		{"layers=[64,128", `--set "layers=[64,128" does not work: the bracket [ is not closed before a comma. Close it, or put the text in quotes: '"..."'.`},
		{"range=[0,1)", `--set "range=[0,1)" does not work: the bracket [ is not closed before a comma. Close it, or put the text in quotes: '"..."'.`},
		{"lr={logspac: [1,2,3]}",
			`--set "lr={logspac: [1,2,3]}" does not work: lr is a map with the unknown key "logspac". A map can be {start: 0, end: 10, step: 2}, {linspace: [0, 1, 11]} or {logspace: [-4, -1, 4]}; give nested parameters their own keys. If it is text, put it in quotes: lr='"{logspac: [1,2,3]}"'.`},
		{"lr={logspace: [-4,-1]}",
			`--set "lr={logspace: [-4,-1]}" does not work: lr needs a list of three numbers for logspace. Give a, b and n, like [-4, -1, 4]. If it is text, put it in quotes: lr='"{logspace: [-4,-1]}"'.`},
		{"x=[a,null]", `--set "x=[a,null]" does not work: x has no value (null). Give a value, write "" for empty text, or false to leave the option out. If it is text, put it in quotes: x='"[a,null]"'.`},
		{"x=!!python/object [1]",
			`--set "x=!!python/object [1]" does not work: x has the unknown tag !!python/object. Leave it out; !!python/tuple on an interval is the only special tag. If it is text, put it in quotes: x='"!!python/object [1]"'.`},
		{"n=3:3", `--set "n=3:3" does not work: n has no values because its interval starts and ends at 3. The end is not part of an interval, so make it larger, or give the one value alone. If it is text, put it in quotes: n='"3:3"'.`},
		{"n=1:2:3:4", `--set "n=1:2:3:4" does not work: 1:2:3:4 has 4 numbers, and an interval has two or three. If it is text, put it in quotes: n='"1:2:3:4"'.`},
		{"open=5:", `--set "open=5:" does not work: the interval 5: lacks a number. Write start:end or start:end:step, like open=5:20:5. If it is text, put it in quotes: open='"5:"'.`},
		{"open=:5:1", `--set "open=:5:1" does not work: the interval :5:1 lacks a number. Write start:end or start:end:step, like open=5:20:5. If it is text, put it in quotes: open='":5:1"'.`},
		{"n=1:2,5", `--set "n=1:2,5" does not work: the interval 1:2 is inside a list. Give the interval alone, or put texts in quotes: n='"1:2","3:4"'.`},
		{`s="a`, `--set "s=\"a" does not work: the quote " is not closed. Close it, or write \" if the value starts with a quote.`},
		{`s="a"b`, `--set "s=\"a\"b" does not work: text follows the closing quote. Put a comma between values.`},
		{"s=\xff", `--set "s=\xff" does not work: s has a value that is not valid UTF-8. Put such data in a file of the project and give the file's name.`},
		{"s=a\x00", `--set "s=a\x00" does not work: s has a value with a zero byte, which a program's argument can't contain. Put such data in a file of the project and give the file's name.`},
	} {
		a, err := ParseSet(c.set)
		if got := fmt.Sprint(err); got != c.want {
			t.Errorf("%q:\ngot  %s %v\nwant %s", c.set, got, a, c.want)
		}
	}
}

func TestMergeSets(t *testing.T) {
	axes := []Axis{{Key: "a", Values: []Value{{"1", Number}}}, {Key: "b", Values: []Value{{"2", Number}}}}
	set := func(key string, n json.Number) Axis { return Axis{Key: key, Interval: []json.Number{"0", n}} }
	got, err := MergeSets(axes, []Axis{set("c", "2"), set("a", "3")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := describe(got), "a=0#1#2# b=2# c=0#1#"; got != want {
		t.Errorf("merged: got %s, want %s", got, want)
	}
	if got, want := describe(axes), "a=1# b=2#"; got != want {
		t.Errorf("original: got %s, want %s", got, want)
	}
	_, err = MergeSets(axes, []Axis{set("c", "2"), set("c", "3")})
	if want := "--set gives c twice. Give all its values at once, like c=1,2,3."; fmt.Sprint(err) != want {
		t.Errorf("twice: got %v, want %s", err, want)
	}
}

func FuzzParseSet(f *testing.F) {
	for _, s := range []string{"a=1", `a="x,y",'z',\:`, "a=1:2:3", "a=1e400:2", "a=0:1e18:1e-400",
		"a=true,false,1", "a=[1,[2]]", `a={x:"(",b},(c`, "a={logspace: [0,1,2]}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseSet(s)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "--set ") {
				t.Fatalf("%q: got message %q, want it to quote the argument", s, err)
			}
			return
		}
		checkAxes(t, []Axis{a})
	})
}

func TestLooksLikeTime(t *testing.T) {
	for set, want := range map[string]bool{
		"t=9:30": true, "t=09:30": false, "t=12:00": true, "epoch=5:20": false, "seed=0:30": false, "n=2:5": false,
		"n=5:20:5": false, "n=0:100": false, "n=1:60": false, `t="9:30"`: false,
	} {
		if got := LooksLikeTime(set); got != want {
			t.Errorf("%s: got %v, want %v", set, got, want)
		}
	}
}
