// Package image finds, fetches and keeps images.
//
// A Reference names an image as docker writes it. A Store is a folder (laid out as an OCI image layout, with layers
// beside it): blobs/sha256 holds manifests and configurations, layers/ one EROFS file for each layer by its diffID, and
// images/ one merged index for each stack of layers by its chainID (package erofs). Nothing is visible under its name
// before it is whole and verified, and nothing that is visible changes, so readers take no lock. index.json, which names
// the images, is replaced as a whole under a lock of its own.
//
// Pull fetches through github.com/google/go-containerregistry: the layers side by side, each in one pass from the wire
// to its layer file. An Image is what a container needs of one: its configuration, and the files of its root.
package image
