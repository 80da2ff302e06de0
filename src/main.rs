fn main() {
    distmesh::build::shim::run_if_shim();
}
