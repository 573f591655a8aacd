"""What this process stands on: files, times, processors, the cluster, the environment, the configuration."""
