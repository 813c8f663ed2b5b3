// Package loader brings the datapath's programs into the kernel and onto devices: it says whether the kernel can run
// them (Probe), mounts bpffs, loads the program objects with the agent's maps and constants, and attaches them.
//
// Attachments outlive the agent: tcx links are pinned, clsact filters (kernels before 6.6) stay on the device. A new
// agent replaces the program behind an attachment atomically, so there is no packet that sees none.
package loader
