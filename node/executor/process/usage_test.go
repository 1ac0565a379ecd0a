package process

import "testing"

// TestRecentOOMKill varies when the kernel kills for lack of memory and when the program is killed.
func TestRecentOOMKill(t *testing.T) {
	for name, tt := range map[string]struct {
		looks []int64 // what was counted at each
		now   int64
		want  bool
	}{
		"no look yet":           {nil, 9, false},
		"not known":             {[]int64{0, 0, 0}, 0, false},
		"none":                  {[]int64{5, 5, 5}, 5, false},
		"before the first look": {[]int64{6}, 6, false},
		"after the only look":   {[]int64{5}, 6, true},
		"after the last look":   {[]int64{5, 5, 5}, 6, true},
		"before the last look":  {[]int64{5, 5, 6}, 6, true},
		"long ago":              {[]int64{5, 6, 6}, 6, false},
		"long ago and now":      {[]int64{5, 6, 6, 6}, 7, true},
	} {
		var c usageSampler
		for _, kills := range tt.looks {
			c.recordKills(kills)
		}
		if got := c.recentOOMKill(tt.now); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
