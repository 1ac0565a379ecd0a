package grid

// Link is a path outside of the project that trials see in place, on each node.
type Link struct {
	Path string `json:"path,omitempty"` // of the link in the attempt's folder; empty when programs use the path itself
	To   string `json:"to"`             // absolute
}
