package arm

// Hypha are Hypha's arms on one node.
func Hypha(bin string) []Arm { return nil }

// HyphaCross are Hypha's arms across two nodes.
func HyphaCross(bin string) []Arm { return nil }
