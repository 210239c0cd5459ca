"""What clusters are made of: descriptions for Ray's launcher and KubeRay, and a node's watcher."""
