package master

import (
	"context"
	"strings"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// imagesUsed returns the image in which a trial of each sweep first ran, as its node has named it.
// It skips what is not the name of an image.
func imagesUsed(stored []jetstream.StoredBatch) map[grid.SweepID]string {
	var used map[grid.SweepID]string
	for _, s := range stored {
		for i := range s.Batch.Events {
			e := &s.Batch.Events[i]
			ran := e.Kind == grid.Started || e.Kind == grid.Finished && e.Result != nil && e.Result.Class == grid.ClassNone
			if e.Image == "" || !ran || used[s.Batch.Sweep] != "" || grid.CheckImage(e.Image) != nil || !strings.Contains(e.Image, "sha256:") {
				continue
			}
			if used == nil {
				used = map[grid.SweepID]string{}
			}
			used[s.Batch.Sweep] = e.Image
		}
	}
	return used
}

// pinImages makes all trials of a sweep run in the image that the first one ran in: moving a tag
// must not mix two images in one table of results.
func (s *scheduler) pinImages(ctx context.Context, used map[grid.SweepID]string) error {
	for id, image := range used {
		f := s.feeds[id]
		if f == nil || f.sweep.Task.Image == "" || f.sweep.Pinned != "" {
			continue
		}
		_, err := s.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			if r.Pinned == "" {
				r.Pinned = image
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
