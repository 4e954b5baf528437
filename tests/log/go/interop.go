// interop looks at a log's folder with Go's own transparency log library: golang.org/x/mod/sumdb.
//
// It opens the signed note, rebuilds proofs from the tiles, and compares them with the proofs it is given. It was told
// nothing about agentbus but the C2SP specifications. Usage: interop FOLDER VERIFIER-KEY PROOF...
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error, what string) {
	if err != nil {
		fmt.Printf("FAILED %s: %v\n", what, err)
		os.Exit(1)
	}
}

func demand(ok bool, what string) {
	if !ok {
		fmt.Printf("FAILED %s\n", what)
		os.Exit(1)
	}
}

// open verifies a checkpoint's signature and reads its three lines.
func open(data []byte, verifier note.Verifier) tlog.Tree {
	n, err := note.Open(data, note.VerifierList(verifier))
	check(err, "signed note")
	lines := strings.Split(n.Text, "\n")
	demand(len(lines) >= 4 && lines[0] == verifier.Name(), "origin")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "size")
	root, err := base64.StdEncoding.DecodeString(lines[2])
	check(err, "root")
	var hash tlog.Hash
	demand(len(root) == len(hash), "length of the root")
	copy(hash[:], root)
	return tlog.Tree{N: size, Hash: hash}
}

// tiles reads C2SP tiles: the paths of the Go checksum database without the height in them, and partial tiles in folders.
type tiles struct{ folder string }

func (t tiles) Height() int                     { return 8 }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) path(tile tlog.Tile) string {
	return filepath.Join(t.folder, "tile", strings.TrimPrefix(tile.Path(), "tile/8/"))
}
func (t tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range want {
		data, err := os.ReadFile(t.path(tile))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

// bundled returns the entries of the bundles, in order.
func bundled(folder string, size int64) [][]byte {
	var entries [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		tile := tlog.Tile{H: 8, L: 0, N: n, W: int(width)}
		name := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(folder, name))
		check(err, "entry bundle")
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			entries = append(entries, data[2:2+length])
			data = data[2+length:]
		}
	}
	return entries
}

// proof reads a C2SP tlog-proof.
func proof(data []byte) (int64, tlog.RecordProof, []byte) {
	head, checkpoint, found := bytes.Cut(data, []byte("\n\n"))
	demand(found, "a proof ends in a checkpoint")
	lines := strings.Split(string(head), "\n")
	demand(lines[0] == "c2sp.org/tlog-proof@v1", "first line")
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	check(err, "index")
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		raw, err := base64.StdEncoding.DecodeString(line)
		check(err, "hash")
		var hash tlog.Hash
		copy(hash[:], raw)
		path = append(path, hash)
	}
	return index, path, checkpoint
}

func same(a, b []tlog.Hash) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func main() {
	folder := os.Args[1]
	verifier, err := note.NewVerifier(os.Args[2])
	check(err, "verifier key")
	data, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	check(err, "checkpoint")
	tree := open(data, verifier)
	reader := tlog.TileHashReader(tree, tiles{folder})

	entries := bundled(folder, tree.N)
	demand(int64(len(entries)) == tree.N, "number of entries in the bundles")
	var indexes []int64
	for n := range entries {
		indexes = append(indexes, tlog.StoredHashIndex(0, int64(n)))
	}
	leaves, err := reader.ReadHashes(indexes)
	check(err, "leaves from the tiles")
	for n, data := range entries {
		demand(leaves[n] == tlog.RecordHash(data), fmt.Sprintf("entry %d of the bundles is not the one of the tiles", n))
	}
	for _, name := range os.Args[3:] {
		data, err := os.ReadFile(name)
		check(err, "proof file")
		index, path, checkpoint := proof(data)
		then := open(checkpoint, verifier)
		leaf := tlog.RecordHash(entries[index])
		check(tlog.CheckRecord(path, then.N, then.Hash, index, leaf), name)
		again, err := tlog.ProveRecord(then.N, index, reader)
		check(err, "rebuilding "+name)
		demand(same(path, again), name+" is not the proof that the tiles give")
		consistent, err := tlog.ProveTree(tree.N, then.N, reader)
		check(err, "consistency")
		check(tlog.CheckTree(consistent, tree.N, tree.Hash, then.N, then.Hash), "consistency of "+name)
	}
	root, err := tlog.TreeHash(tree.N, reader)
	check(err, "tree hash")
	demand(root == tree.Hash, "the tiles' root is the one signed")
	fmt.Printf("ok %d entries %d proofs\n", tree.N, len(os.Args)-3)
}
