"""What every long job needs: stopping, progress, processes, threads, whole files."""
