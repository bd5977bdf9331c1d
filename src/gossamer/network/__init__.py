"""One process for each agent: messages travel over Eclipse Zenoh, from peer to peer, without a broker."""
