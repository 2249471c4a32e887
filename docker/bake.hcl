# docker buildx bake -f docker/bake.hcl            all images, for amd64 and arm64
# docker buildx bake -f docker/bake.hcl --load --set '*.platform=linux/amd64'     into the local engine

variable "REGISTRY" { default = "" }
variable "VERSION" { default = "latest" }
variable "TORCH_INDEX_URL" { default = "https://download.pytorch.org/whl/cpu" }

group "default" { targets = ["aggregator", "gateway", "participant"] }

target "image" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
}

target "aggregator" {
  inherits = ["image"]
  target   = "aggregator"
  tags     = ["${REGISTRY}fedattn-aggregator:${VERSION}"]
}

target "gateway" {
  inherits = ["image"]
  target   = "gateway"
  tags     = ["${REGISTRY}fedattn-gateway:${VERSION}"]
}

target "participant" {
  inherits = ["image"]
  target   = "participant"
  tags     = ["${REGISTRY}fedattn-participant:${VERSION}"]
  args     = { TORCH_INDEX_URL = TORCH_INDEX_URL }
}
