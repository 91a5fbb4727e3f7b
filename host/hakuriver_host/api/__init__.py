"""The Host's HTTP API. One module per resource; each declares its endpoints, from which routes and OpenAPI are made."""
