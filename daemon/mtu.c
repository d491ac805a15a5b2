/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mtu.h"

#include <linux/if_ether.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>

#define GSO_SEGMENTS_ANY 65535 /* GSO_MAX_SEGS, include/linux/netdevice.h */
#define UDP_SEGMENTS 64        /* UDP_MAX_SEGMENTS, include/linux/udp.h */
#define UDP_BYTES 65507        /* of payload in one message over IPv4 */

/* The largest inner packet that needs no outer fragments. */
static uint32_t unfragmented(const EcEncap *e, const EcWire *w, uint32_t path_mtu)
{
	/* Of a path such as loopback's, with 65536, one IP packet cannot use all. */
	uint32_t path = path_mtu ? MIN(path_mtu, IP_MAXPACKET) : EC_MTU_ETHERNET;
	uint32_t overhead = e->overhead(w);

	return path > overhead + EC_MTU_KERNEL_MIN ? path - overhead : EC_MTU_KERNEL_MIN;
}

static bool can_fragment(const EcEncap *e, const EcWire *w)
{
	return e->flags &
	       (w->remote.family == AF_INET6 ? EC_ENCAP_FRAGMENTS_V6 : EC_ENCAP_FRAGMENTS_V4);
}

/* A bridge hands a port no frame above the bridge's MTU, and drops in silence what is above the
 * port's. So the port carries what the bridge does, unless that would be dropped unseen further
 * on. A bridge that is smaller than Ethernet says nothing: it takes the MTU of its smallest port,
 * which may be this one. */
static uint32_t bridged(const EcSettings *s, const EcEncap *e, const EcWire *w, uint32_t whole,
		uint32_t bridge_mtu)
{
	uint32_t target = MAX(bridge_mtu, EC_MTU_ETHERNET);
	bool full = can_fragment(e, w) || (e->flags & EC_ENCAP_TOO_BIG);

	return full && s->full_frames != EC_FULL_FRAMES_NO ? target : MIN(whole, target);
}

/* The worker sends a super-frame in one message if it is no more than UDP takes at once: TCP of
 * this machine is told so. A port of a bridge gets super-frames that others made: the kernel would
 * cut those that are larger, all of each. */
static uint32_t gso_segments(const EcSettings *s, const EcEncap *e, const EcWire *w, uint32_t mtu)
{
	size_t outer = sizeof(struct udphdr) +
		       (w->remote.family == AF_INET6 ? sizeof(struct ip6_hdr) : sizeof(struct ip));
	uint32_t datagram = mtu + e->overhead(w) - (uint32_t)outer;

	if (!e->worker)
		return 0;
	return s->bridge || s->attach ? GSO_SEGMENTS_ANY
				      : CLAMP(UDP_BYTES / datagram, 1, UDP_SEGMENTS);
}

void ec_mtu_choose(const EcSettings *s, const EcEncap *e, const EcWire *w, uint32_t path_mtu,
		uint32_t bridge_mtu, EcMtu *ret)
{
	bool p2p = s->mode == EC_MODE_POINT_TO_POINT;
	bool full = can_fragment(e, w) && s->full_frames == EC_FULL_FRAMES_YES;
	uint32_t whole = unfragmented(e, w, path_mtu), mtu;

	if (s->mtu)
		mtu = MAX(s->mtu, EC_MTU_KERNEL_MIN);
	else if (!p2p)
		mtu = MAX(bridged(s, e, w, whole, bridge_mtu), EC_MTU_MIN);
	else
		mtu = MAX(whole, full ? EC_MTU_ETHERNET : EC_MTU_MIN);

	/* Once chosen for a mode it stays, whatever the path's MTU is at the moment: a path that
	 * shrinks needs no change then. */
	bool fragment = full || !p2p || (s->mtu && mtu > whole);
	fragment = fragment && can_fragment(e, w) && s->full_frames != EC_FULL_FRAMES_NO;

	*ret = (EcMtu){
		.mtu = mtu,
		.largest_frame = (fragment ? mtu : MIN(mtu, whole)) +
				 (e->flags & EC_ENCAP_ETHERNET ? ETH_HLEN : 0),
		.fragment = fragment,
		.whole = whole,
		.gso_segments = gso_segments(s, e, w, mtu),
	};
}
