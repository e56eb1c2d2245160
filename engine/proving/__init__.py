"""Whether what the stream acknowledges is on disks: one prober asks its servers, and says so to whoever records."""
