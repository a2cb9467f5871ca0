"""Object stores and web servers: what `object_store` is made of.

base            what a store answers: objects, and their bytes from any place on
buckets, web    stores: s3, gs, az and oci over fsspec; http and https over httpx2
credentials     who is asking, from the environment, store by store
faults          the stores' troubles in the user's words, without their secrets
download        one object onto this disk: resumed, checked, kept
upload          a folder into a store, in an order in which a cut upload is no checkpoint
"""
