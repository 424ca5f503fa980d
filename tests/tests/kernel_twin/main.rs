//! The simulator's cells once more, by the kernel: the built programs in network namespaces, behind nft and connection
//! tracking. Whether a pair goes direct is asked of the simulator, and every router is asked what it did.

mod carriers;
mod cells;
mod families;
mod mtu;
mod twin;
