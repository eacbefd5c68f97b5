"""Reads a file of Kubernetes manifests, and prints its documents as one JSON array."""
import json
import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as manifests:
    print(json.dumps([document for document in yaml.safe_load_all(manifests) if document is not None]))
