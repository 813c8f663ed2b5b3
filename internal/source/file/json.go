package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// DamagedError says that a state file did not read back and was set aside.
type DamagedError struct {
	Path  string // what was asked for
	Aside string // where it is now; empty if even renaming failed
	Err   error  // what is wrong with it
}

// Error names both places and the reason.
func (e *DamagedError) Error() string {
	if e.Aside == "" {
		return fmt.Sprintf("state file %s is damaged and could not be set aside: %v", e.Path, e.Err)
	}
	return fmt.Sprintf("state file %s is damaged (set aside as %s): %v", e.Path, e.Aside, e.Err)
}

// Unwrap gives the reason.
func (e *DamagedError) Unwrap() error { return e.Err }

// WriteJSON writes v, indented, with its checksum behind it, as Write does. The file is two JSON values: v, and the
// string "sha256:<hex of v's bytes>"; tools like jq read it as it is.
func WriteJSON(path string, v any, mode fs.FileMode) error {
	data, err := Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Write(path, data, mode)
}

// ReplaceJSON is WriteJSON by way of Replace.
func ReplaceJSON(path string, v any, mode fs.FileMode) error {
	data, err := Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Replace(path, data, mode)
}

// Marshal is the content WriteJSON writes.
func Marshal(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(data, "\n%q\n", checksum(data)), nil
}

// ReadJSON reads what WriteJSON wrote, or a file of plain JSON, into v. It returns an error that is fs.ErrNotExist when
// there is no file, and a *DamagedError when its content is not to be trusted: then it has been renamed to
// `<path>.damaged` (an older file of that name is replaced), and v is to be thrown away. Other errors leave the file
// where it is.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if err := Unmarshal(data, v); err != nil {
		return SetAside(path, err)
	}
	return nil
}

// SetAside renames a state file whose content makes no sense to its reader and returns the *DamagedError that says so.
func SetAside(path string, why error) error {
	e := &DamagedError{Path: path, Aside: path + damagedSuffix, Err: why}
	if err := os.Rename(path, e.Aside); err != nil {
		e.Aside, e.Err = "", errors.Join(why, err)
	}
	return e
}

// Unmarshal reads content made by Marshal, or plain JSON without a checksum. What follows the value must be its
// checksum or nothing.
func Unmarshal(data []byte, v any) error {
	var raw json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&raw); err != nil {
		return unexpected(err)
	}
	var sum string
	switch err := dec.Decode(&sum); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return fmt.Errorf("checksum: %w", unexpected(err))
	case sum != checksum(raw):
		return errors.New("checksum does not match the content")
	case dec.More():
		return errors.New("more data behind the checksum")
	}
	return json.Unmarshal(raw, v)
}

// unexpected turns the bare EOF of an empty or cut file into one that says so.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func checksum(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
