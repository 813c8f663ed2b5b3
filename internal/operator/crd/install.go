// Package crd makes an API server know the resources of cilium.io as this version does: it creates and upgrades their definitions, and
// leaves those alone that a newer version has put there.
package crd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hypha-net/hypha/api/k8s/crd"
)

// LabelVersion is the label of a definition that says which of our versions it is from, a number.
const LabelVersion = "network.hypha.io/schema-version"

// Version is the version of the definitions. It rises with every release that changes one of them.
const Version = 2

// Definitions are those of api/k8s.
func Definitions() ([]*apiextensionsv1.CustomResourceDefinition, error) {
	files, err := fs.Glob(crd.Files, "*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*apiextensionsv1.CustomResourceDefinition
	for _, f := range files {
		text, err := crd.Files.ReadFile(f)
		if err != nil {
			return nil, err
		}
		d := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(text, d); err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		out = append(out, d)
	}
	return out, nil
}

// Install creates and upgrades the definitions. Several may do so at once.
func Install(ctx context.Context, c client.Client, log *slog.Logger) error {
	all, err := Definitions()
	if err != nil {
		return err
	}
	for _, d := range all {
		if err := install(ctx, c, log, d, Version); err != nil {
			return fmt.Errorf("install definition of %s: %w", d.Name, err)
		}
	}
	return nil
}

// tries bounds how often somebody else may be faster.
const tries = 10

func install(ctx context.Context, c client.Client, log *slog.Logger, want *apiextensionsv1.CustomResourceDefinition, version int) (err error) {
	for range tries {
		var there apiextensionsv1.CustomResourceDefinition
		err = c.Get(ctx, client.ObjectKeyFromObject(want), &there)
		switch {
		case apierrors.IsNotFound(err):
			d := want.DeepCopy()
			label(d, version)
			if err = c.Create(ctx, d); err == nil {
				log.Info("definition created", "name", d.Name, "version", version)
			}
		case err == nil:
			err = upgrade(ctx, c, log, &there, want, version)
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return err
}

// upgrade makes a definition as it should be, unless it is a newer version's. One that the API server does not let go, because
// objects are stored in a version that is not ours, does as long as it serves ours as well.
func upgrade(ctx context.Context, c client.Client, log *slog.Logger, there, want *apiextensionsv1.CustomResourceDefinition, version int) error {
	if v, err := strconv.Atoi(there.Labels[LabelVersion]); err == nil && v > version {
		log.Warn("definition is a newer version's, left alone", "name", there.Name, "version", v, "own", version)
		return nil
	}
	d, before := there.DeepCopy(), there.ResourceVersion
	d.Spec = want.Spec
	label(d, version)
	err := c.Update(ctx, d) // writes nothing when nothing is different
	if apierrors.IsInvalid(err) && serves(there, want) {
		log.Warn("definition of others cannot be replaced, used as it is", "name", there.Name, "err", err)
		return nil
	}
	if err == nil && d.ResourceVersion != before {
		log.Info("definition upgraded", "name", d.Name, "version", version)
	}
	return err
}

func label(d *apiextensionsv1.CustomResourceDefinition, version int) {
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	d.Labels[LabelVersion] = strconv.Itoa(version)
}

// serves says whether a definition serves all versions of another.
func serves(there, want *apiextensionsv1.CustomResourceDefinition) bool {
	for _, w := range want.Spec.Versions {
		if !slices.ContainsFunc(there.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == w.Name && v.Served }) {
			return false
		}
	}
	return true
}

// Wait returns when all definitions can be used, whoever has made them.
func Wait(ctx context.Context, c client.Reader, limit time.Duration) error {
	all, err := Definitions()
	if err != nil {
		return err
	}
	for _, d := range all {
		var last error
		err := wait.PollUntilContextTimeout(ctx, 250*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
			var there apiextensionsv1.CustomResourceDefinition
			if last = c.Get(ctx, client.ObjectKeyFromObject(d), &there); last != nil {
				return false, nil
			}
			last = errors.New("it is not established")
			return slices.ContainsFunc(there.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
				return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
			}), nil
		})
		if err != nil {
			return fmt.Errorf("wait for definition of %s: %w: %w", d.Name, err, last)
		}
	}
	return nil
}
